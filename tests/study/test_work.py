import os
import shlex
import weakref
from pathlib import Path

import pytest

from granprune.run.directory import RunDirectory
from granprune.study import work
from granprune.study.resolve import FitParser
from granprune.study.work import Refused, Task, Unfinished, make, make_after, make_beginning, output_to


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return Task(["--a=b c"], RunDirectory(tmp_path / "run"), 1, str(tmp_path))


def pretend(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Put a program in the place of `granprune` that says something and ends with this code."""

    def main(words: list[str]) -> int:
        os.write(2, b"what is wrong\n")
        return code

    monkeypatch.setattr(work, "main", main)
    monkeypatch.setattr(os, "chdir", lambda folder: None)


def test_everything_that_is_printed_goes_to_the_file(tmp_path: Path, capfd) -> None:
    with capfd.disabled(), output_to(tmp_path / "log.txt"):
        print("from Python")
        os.system("echo from elsewhere")
    assert (tmp_path / "log.txt").read_text() == "from Python\nfrom elsewhere\n"


def test_output_comes_back_afterwards(tmp_path: Path, capfd) -> None:
    with pytest.raises(ZeroDivisionError), output_to(tmp_path / "log.txt"):
        os.write(1, b"inside\n")
        _ = 1 / 0
    os.write(1, b"outside\n")
    assert capfd.readouterr().out == "outside\n"


def test_run_leaves_its_command_and_log(task: Task, monkeypatch) -> None:
    pretend(monkeypatch, 0)
    make(task)
    assert shlex.split((task.directory.path / "command.txt").read_text()) == ["granprune", "fit", "--a=b c"]
    assert (task.directory.path / "log.txt").read_text() == "what is wrong\n"


def test_nothing_of_a_run_stays_in_the_worker(task: Task, monkeypatch) -> None:
    kept = []

    class Trainer:
        def __init__(self) -> None:
            self.callbacks = [self]

    def main(words: list[str]) -> int:
        kept.append(weakref.ref(Trainer()))
        return 0

    monkeypatch.setattr(work, "main", main)
    monkeypatch.setattr(os, "chdir", lambda folder: None)
    make(task)
    assert kept[0]() is None


@pytest.mark.parametrize(
    ("code", "kind"), [(2, Refused), (1, Unfinished), (75, Unfinished), (130, Unfinished)]
)
def test_only_wrong_input_is_not_tried_again(task: Task, monkeypatch, code: int, kind: type) -> None:
    pretend(monkeypatch, code)
    with pytest.raises(kind, match=f"what is wrong .exit code {code}, see .*log.txt"):
        make(task)


def test_beginning_that_did_not_reach_its_end(task: Task, monkeypatch) -> None:
    pretend(monkeypatch, 75)
    with pytest.raises(Unfinished):
        make_beginning(task, 8)


@pytest.mark.slow
def test_beginning_is_made_once_and_inherited(small_study, parser: FitParser, monkeypatch) -> None:
    from granprune.study import beginning

    monkeypatch.setattr("sys.argv", ["granprune"])
    run = parser.resolve(small_study().commands()[0])
    first = parser.resolve(beginning.words(run, str(run.directory.path.parent / "beginnings")))
    begin = Task(first.words, first.directory, 1, os.getcwd())

    begun = make_beginning(begin, 8)
    written = begun.checkpoint(8).stat().st_mtime_ns
    make_beginning(begin, 8)
    assert begun.checkpoint(8).stat().st_mtime_ns == written
    assert not begun.complete

    make_after(Task(run.words, run.directory, 1, os.getcwd()), begun, 8)
    assert run.directory.complete
    assert run.directory.metrics.read_bytes().startswith(begun.metrics.read_bytes())
