from pathlib import Path

import pandas as pd
import pytest

from granprune.__main__ import main

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
