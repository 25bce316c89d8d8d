import json
from pathlib import Path

import pytest

from granprune.__main__ import main

STUDY = """
name: little
base: [{base}]
out: {out}
axes: {{density: [0.5, 0.25]}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    base = Path(__file__).parent.parent / "small.yaml"
    path.write_text(STUDY.format(base=base, out=tmp_path / "runs"))
    return path


def test_dry_run_counts(file: Path, capsys) -> None:
    assert main(["study", "--config", str(file), "--dry_run", "--resources.cpus", "1000"]) == 0
    said = capsys.readouterr().out
    assert "2 runs" in said and "0 done, 2 to make" in said
    assert "optimizer steps: 48, of which shared beginnings save 8 (17%)" in said
    assert "1 at a time: unknown until a run of each task is done" in said


def test_dry_run_lists_command_lines(file: Path, capsys) -> None:
    main(["study", "--config", str(file), "--dry_run", "--list"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("granprune fit")]
    assert [line.split("--pruning.density=")[1].split()[0] for line in lines] == ["0.5", "0.25"]


def test_dry_run_estimates_from_what_is_done(file: Path, capsys) -> None:
    from granprune.study.command import study_parser
    from granprune.study.plan import Study
    from granprune.study.resolve import resolve

    options = study_parser().parse_args(["--config", str(file)])
    study = Study("little", base=options.base, axes=options.axes, out=options.out)
    run = resolve(study.commands())[0]
    run.directory.path.mkdir(parents=True)
    result = {"rounds": [{}], "test_accuracy": 0.5, "training_seconds": 48.0}
    run.directory.result.write_text(json.dumps(result))
    main(["study", "--config", str(file), "--dry_run", "--resources.cpus", "1000"])
    said = capsys.readouterr().out
    assert "1 done, 1 to make" in said and "about 48 s" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nome", "x"], "nome"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--name", "x", "--axes", "{seed: 3}"], "axis seed"),
        (["--name", "x", "--base", "[nowhere.yaml]"], "nowhere.yaml"),
        (["--name", "x", "--resources.cpus", "0"], "cpus"),
    ],
)
def test_wrong_input_is_one_line(words: list[str], message: str, capsys) -> None:
    assert main(["study", *words, "--dry_run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("granprune: error:") and message in line


def test_help_names_every_option(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["study", "--help"])
    said = capsys.readouterr().out
    for option in (
        "--config",
        "--name",
        "--base",
        "--axes",
        "--grids",
        "--resources.gpus",
        "--address",
        "--dry_run",
    ):
        assert option in said
