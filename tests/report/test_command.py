from pathlib import Path

import pandas as pd
import pytest

from granprune.__main__ import main
from tests.report.tables import write_bench, write_run

DRAWN = ["accuracy-over-density", "accuracy-over-parameters", "accuracy-over-macs", "advantage", "matched"]


@pytest.fixture
def runs(toy: pd.DataFrame, tmp_path: Path) -> str:
    path = tmp_path / "runs.csv"
    toy.assign(data="from JPEG images").to_csv(path, index=False)
    return str(path)


def test_report_leaves_table_words_figures_and_page(runs: str, tmp_path: Path, capsys) -> None:
    out = tmp_path / "report"
    assert main(["report", runs, "--out", str(out)]) == 0
    figures = {f"{name}-toy-net.{kind}" for name in DRAWN for kind in ("png", "pdf")}
    assert {path.name for path in out.iterdir()} == {"runs.csv", "report.md", "report.html", *figures}
    assert sorted((out / "runs.csv").read_text().splitlines()) == sorted(Path(runs).read_text().splitlines())
    assert capsys.readouterr().out.startswith("54 runs, 10 figures")
    said = (out / "report.md").read_text()
    assert [line for line in said.splitlines() if line.startswith("## Where")] == [
        f"## Where random pruning costs {drop} points" for drop in (5, 2, 10)
    ]


def test_report_of_a_report_is_the_same(runs: str, tmp_path: Path) -> None:
    main(["report", runs, "--out", str(tmp_path / "a")])
    main(["report", str(tmp_path / "a" / "runs.csv"), "--out", str(tmp_path / "b")])
    for path in (tmp_path / "a").iterdir():
        assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes(), path.name


def test_report_in_place_from_its_table_alone_is_that_of_the_runs(tmp_path: Path) -> None:
    random = {"criterion": "Random", "scope": "Layerwise", "schedule": "AtInit"}
    for density, accuracy in (0.5, 0.7333), (0.25, 1 / 3):
        for seed in 1, 2:
            about = {"density": density, "seed": seed, "data": {"lossless": "false", "note": "from JPEG"}}
            write_run(tmp_path / "runs" / f"m-{density}-{seed}", **about, test_accuracy=accuracy + seed / 30)
            write_run(tmp_path / "runs" / f"r-{density}-{seed}", **about, **random, test_accuracy=accuracy)
    assert main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "report")]) == 0
    kept = tmp_path / "kept" / "runs.csv"
    kept.parent.mkdir()
    kept.write_bytes((tmp_path / "report" / "runs.csv").read_bytes())
    assert main(["report", str(kept), "--out", str(kept.parent)]) == 0
    files = {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}
    assert {path.name: path.read_bytes() for path in kept.parent.iterdir()} == files


def test_latencies_beside_the_runs_are_reported_and_kept(runs: str, tmp_path: Path) -> None:
    write_bench(tmp_path / "bench", {"run": "a"}, {"run": "b", "granularity": "Kernels"})
    assert main(["report", runs, str(tmp_path / "bench"), "--out", str(tmp_path / "a")]) == 0
    kept = {path.name for path in (tmp_path / "a").iterdir()}
    assert {"bench.json", "frontier-toy-net.png", "frontier-toy-net.pdf"} <= kept
    assert "## Latency" in (tmp_path / "a" / "report.md").read_text()
    main(["report", str(tmp_path / "a" / "runs.csv"), "--out", str(tmp_path / "b")])
    for path in (tmp_path / "a").iterdir():
        assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes(), path.name


def test_accuracy_to_compare_at(runs: str, tmp_path: Path) -> None:
    main(["report", runs, "--out", str(tmp_path / "a"), "--accuracy", "80.5"])
    said = (tmp_path / "a" / "report.md").read_text()
    assert "## Where random pruning leaves 80.5 %" in said and "| Toy Net | Weights | 80.50 |" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "runs"),
        (["nowhere"], "nowhere"),
        (["nowhere", "--drops", "x"], "drops"),
        (["nowhere", "--onto", "x"], "onto"),
    ],
)
def test_wrong_input_is_one_line(words: list[str], message: str, capsys) -> None:
    assert main(["report", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("granprune: error:") and message in line


def test_help_names_every_option(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["report", "--help"])
    said = capsys.readouterr().out
    for option in "runs", "--out", "--drops", "--accuracy", "--note":
        assert option in said
