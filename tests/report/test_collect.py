import json
from pathlib import Path

import pytest

from granprune.errors import UserError
from granprune.report.collect import COLUMNS, collect, protocol, variant
from tests.report.tables import CONFIG, write_run


def test_row_of_a_run(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    table = collect([str(tmp_path)])
    assert list(table.columns) == COLUMNS
    (row,) = table.to_dict("records")
    wanted = {
        "name": "run",
        "rounds": 1,
        "steps": 20,
        "dense_accuracy": 0.9,
        "kept_parameters": 5,
        "component_size": 2.0,
        "dead_layers": 1,
    }
    assert {key: row[key] for key in wanted} == wanted
    assert row["command"] == "granprune fit --config run/config.yaml"
    assert row["dimensions"] is None or row["dimensions"] != row["dimensions"]


def test_run_of_a_study_knows_its_command_and_dimensions(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run")
    (directory / "command.txt").write_text("granprune fit --a=1\n")
    layers = {"a": {"effective": 2.0, "actual": 9}, "b": {"effective": 4.0, "actual": 9}}
    (directory / "dimensionality.json").write_text(json.dumps(layers))
    (row,) = collect([str(tmp_path)]).to_dict("records")
    assert row["command"] == "granprune fit --a=1" and row["dimensions"] == 3.0


def test_images_that_are_not_the_originals_are_noted(tmp_path: Path) -> None:
    write_run(tmp_path / "a", data={"lossless": "false", "note": "from JPEG"})
    write_run(tmp_path / "b", data={"lossless": "true", "note": "exact"})
    table = collect([str(tmp_path)]).set_index("name")
    assert table.loc["a", "data"] == "from JPEG"
    assert table["data"].notna().tolist() == [True, False]


def test_run_pruned_at_initialization_has_no_dense_accuracy(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    path = tmp_path / "run" / "result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "rounds": result["rounds"][1:]}))
    assert collect([str(tmp_path)])["dense_accuracy"].isna().all()


def test_table_read_back_equals_what_was_written(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a", density=0.5)
    write_run(tmp_path / "runs" / "b", density=0.25)
    table = collect([str(tmp_path / "runs")])
    table.to_csv(tmp_path / "runs.csv", index=False)
    again = collect([str(tmp_path / "runs.csv")])
    again.to_csv(tmp_path / "again.csv", index=False)
    assert (tmp_path / "again.csv").read_text() == (tmp_path / "runs.csv").read_text()


def test_run_found_twice_counts_once(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a")
    collect([str(tmp_path)]).to_csv(tmp_path / "runs.csv", index=False)
    assert len(collect([str(tmp_path), str(tmp_path / "runs.csv"), str(tmp_path / "runs" / "a")])) == 1


def test_unfinished_runs_do_not_count(tmp_path: Path) -> None:
    write_run(tmp_path / "done")
    (write_run(tmp_path / "cut") / "result.json").unlink()
    assert collect([str(tmp_path)])["name"].tolist() == ["done"]


def test_protocol_ignores_pruning_granularity_seed_and_places(tmp_path: Path) -> None:
    other = json.loads(json.dumps(CONFIG))
    other["seed_everything"] = 7
    other["model"]["granularity"] = {"class_path": "x.Nodes"}
    other["pruning"] |= {"density": 0.1, "criterion": {"class_path": "x.SNIP"}}
    other["data"]["init_args"]["data_dir"] = "there"
    assert protocol(other) == protocol(CONFIG)
    other["pruning"]["schedule"]["init_args"]["steps"] = 11
    assert protocol(other) != protocol(CONFIG)


def test_variant_ignores_density_and_seed_only() -> None:
    other = json.loads(json.dumps(CONFIG))
    other["pruning"]["density"] = 0.1
    assert variant(other) == variant(CONFIG)
    other["pruning"]["schedule"]["init_args"]["rounds"] = 2
    assert variant(other) != variant(CONFIG)


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished run in"):
        collect([str(tmp_path)])
    with pytest.raises(UserError, match="neither a folder of runs nor a table"):
        collect([str(tmp_path / "nowhere")])
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"other.csv is not a table of runs: it lacks the columns name, task"):
        collect([str(tmp_path / "other.csv")])
    for content in b"", b'a\n"b,c,d\n1,2', b"\xff\xfe\xfa":
        (tmp_path / "other.csv").write_bytes(content)
        with pytest.raises(UserError, match=r"other.csv is not a table of runs: expected a folder of runs"):
            collect([str(tmp_path / "other.csv")])
