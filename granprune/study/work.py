"""What a worker does: one run from its last checkpoint to its end, its output into its log file."""

import gc
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from granprune.__main__ import main
from granprune.run.checkpoint_io import is_sealed
from granprune.run.directory import RunDirectory
from granprune.run.preemption import EXIT_INTERRUPTED
from granprune.study import beginning

LOG = "log.txt"
COMMAND = "command.txt"  # read by the report
WRONG_INPUT = 2


class Refused(Exception):
    """A run whose configuration is wrong: trying again is of no use."""


class Unfinished(Exception):
    """A run that ended before its end: it can go on from its last checkpoint."""


@dataclass(frozen=True)
class Task:
    """A run to make, as it travels to a worker.

    Args:
        words: What follows `granprune fit`.
        directory: The run's.
        threads: Of PyTorch.
        folder: That relative paths are meant from.
    """

    words: list[str]
    directory: RunDirectory
    threads: int
    folder: str


def make(task: Task) -> None:
    """Make or go on with a run.

    Raises:
        Refused, Unfinished: It did not come to its end.
    """
    code = _fit(task)
    if code:
        raise _failure(code, task.directory.path)


def make_beginning(task: Task, step: int) -> RunDirectory:
    """Make the dense round that several runs share, unless it is there.

    Args:
        task: The beginning.
        step: Where it ends.

    Raises:
        Refused, Unfinished: It did not come to its end.
    """
    os.chdir(task.folder)
    boundary = task.directory.checkpoint(step)
    if not (boundary.exists() and is_sealed(boundary.read_bytes())):
        code = _fit(task)
        if code != EXIT_INTERRUPTED or not boundary.exists():
            raise _failure(code, task.directory.path)
    return task.directory


def make_after(task: Task, begun: RunDirectory, step: int) -> None:
    """Make a run that goes on where its beginning ended.

    Args:
        task: The run.
        begun: Where its beginning is.
        step: Where that ended.

    Raises:
        Refused, Unfinished: It did not come to its end.
    """
    os.chdir(task.folder)
    beginning.inherit(task.directory, begun, step)
    make(task)


def _fit(task: Task) -> int:
    os.chdir(task.folder)
    task.directory.path.mkdir(parents=True, exist_ok=True)
    (task.directory.path / COMMAND).write_text(shlex.join(["granprune", "fit", *task.words]) + "\n")
    torch.set_num_threads(task.threads)  # the run before may have had another number
    with output_to(task.directory.path / LOG):
        try:
            return main(["fit", *task.words])
        except SystemExit as end:  # how a complete run is left
            return int(end.code or 0)
        finally:
            gc.collect()  # trainer and data refer to each other: they would stay, run after run


def _failure(code: int, path: Path) -> Exception:
    lines = (path / LOG).read_text(errors="replace").strip().splitlines()
    message = f"{lines[-1] if lines else 'no output'} (exit code {code}, see {path / LOG})"
    return Refused(message) if code == WRONG_INPUT else Unfinished(message)


@contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Within the block, everything this process prints is appended to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    with open(path, "a") as file:
        for stream in 1, 2:
            os.dup2(file.fileno(), stream)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, before in zip((1, 2), kept, strict=True):
            os.dup2(before, stream)
            os.close(before)
