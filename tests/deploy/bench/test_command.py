import json

import pytest

from granprune.deploy.bench import command
from granprune.deploy.bench.command import BenchOptions, bench, main
from granprune.deploy.bench.measure import measure_group
from granprune.errors import UserError


def test_times_prints_and_writes(subject, here, few_engines, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "of_run", lambda run, images, data_dir: subject)
    options = BenchOptions(["a-run"], batch="1,3", threads="1,2", rounds=2, seconds=1e-4, out=str(tmp_path))
    rows = bench(options, here)
    assert [(row["threads"], row["batch"]) for row in rows[::4]] == [(1, 1), (1, 3), (2, 1), (2, 3)]
    printed = capsys.readouterr().out
    assert "best dense float32 engine: torch eager" in printed
    assert printed.count("Weights 0.4: ") == 4  # whichever of its forms was fastest
    assert json.loads((tmp_path / "bench.json").read_text())["rows"] == rows
    assert {path.name for path in tmp_path.iterdir()} == {
        "bench.csv",
        "bench.json",
        "frontier-digits-dbsn.png",
    }


def test_measurements_go_where_json_says(subject, here, few_engines, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "of_run", lambda run, images, data_dir: subject)
    options = BenchOptions(["a-run"], batch="1", rounds=1, seconds=1e-4, out=str(tmp_path / "out"))
    options.json = str(tmp_path / "here.json")
    bench(options, here)
    assert (tmp_path / "here.json").exists()
    assert not (tmp_path / "out" / "bench.json").exists()


def test_what_was_measured_before_an_interruption_is_kept(subject, here, few_engines, monkeypatch, tmp_path):
    def interrupted(subjects, batch, *rest):
        if batch == 3:
            raise KeyboardInterrupt
        return measure_group(subjects, batch, *rest)

    monkeypatch.setattr(command, "of_run", lambda run, images, data_dir: subject)
    monkeypatch.setattr(command, "measure_group", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench(BenchOptions(["a-run"], batch="1,3", rounds=1, seconds=1e-4, out=str(tmp_path)), here)
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert {row["batch"] for row in rows} == {1}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give either run directories or --network"),
        (["a-run", "--network", "DBSN"], "give either run directories or --network"),
        (["no-such-run"], "no-such-run holds no run"),
        (["--network", "DBSN", "--densities", "0.5,2"], "--densities 2: give numbers over 0 and up to 1"),
        (["--network", "DBSN", "--batch", "0"], "--batch 0: give integers"),
        (["--network", "DBSN", "--threads", ""], "at least one value"),
        (["--network", "DBSN", "--rounds", "0"], "rounds"),
    ],
)
def test_wrong_words_end_in_one_line(words, message):
    with pytest.raises(UserError, match=message):
        main(words)
