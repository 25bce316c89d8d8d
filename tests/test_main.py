import os
import sys

import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import granprune
import granprune.cli
from granprune.__main__ import COMMANDS, main
from granprune.errors import UserError
from granprune.run.preemption import Interrupted


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_usage(capsys, words):
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert err == "" and all(f"\n  {command} " in out for command in COMMANDS)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"granprune {granprune.__version__}\n"


def test_unknown_command(capsys):
    assert main(["fly"]) == 2
    assert capsys.readouterr().err.startswith("granprune: error: there is no command 'fly'; there are fit, ")


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (UserError("density is 2;\n   expected less"), 2, "error: density is 2; expected less"),
        (MisconfigurationException("no GPU"), 2, "error: no GPU"),
        (OSError(28, "No space left on device", "runs/a"), 1, "error: No space left on device: runs/a"),
        (KeyboardInterrupt(), 130, "error: stopped"),
        (Interrupted(15, "runs/a", 7), 75, "stopped by SIGTERM after step 7, saved in runs/a; run the same"),
    ],
)
def test_expected_failures_are_one_line(monkeypatch, capsys, raised, code, line):
    def fail(words):
        raise raised

    monkeypatch.setattr(granprune.cli, "PruningCLI", fail)
    assert main(["fit"]) == code
    (found,) = capsys.readouterr().err.splitlines()
    assert found.startswith(f"granprune: {line}")


def test_bugs_keep_their_traceback(monkeypatch):
    def fail(words):
        raise ZeroDivisionError

    monkeypatch.setattr(granprune.cli, "PruningCLI", fail)
    with pytest.raises(ZeroDivisionError):
        main(["fit"])


def test_own_modules_are_found_where_it_starts(monkeypatch, tmp_path):
    """As with `python -m`, but behind everything installed: a file `random.py` there is no harm."""
    monkeypatch.setattr(granprune.cli, "PruningCLI", lambda words: None)
    monkeypatch.setattr(sys, "path", ["first"])
    monkeypatch.chdir(tmp_path)
    assert main(["fit"]) == main(["fit"]) == 0
    assert sys.path == ["first", os.getcwd()]
