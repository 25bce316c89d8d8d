"""A run's directory: its files, its owner and its checkpoints."""

import json
import logging
import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout

from granprune.errors import UserError
from granprune.run.checkpoint_io import DamagedCheckpoint, load

log = logging.getLogger(__name__)


class RunDirectory:
    """Where a run keeps everything it writes.

    Args:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"
        self.result = path / "result.json"
        self.dimensionality = path / "dimensionality.json"
        self.figure = path / "accuracy-over-density.png"
        self.checkpoints = path / "checkpoints"
        self._lock = FileLock(path / ".lock")
        self._owner = path / ".owner.json"

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return RunDirectory, (self.path,)  # a spawned process does not own the lock

    @property
    def complete(self) -> bool:
        """Whether the run has ended: its result is the last thing written."""
        return self.result.exists()

    def checkpoint(self, step: int) -> Path:
        """The file of the checkpoint after `step` steps."""
        return self.checkpoints / f"step={step:08d}.ckpt"

    def saved(self) -> list[Path]:
        """Checkpoints, oldest first."""
        return sorted(self.checkpoints.glob("step=*.ckpt"))

    def latest(self) -> Path | None:
        """The newest checkpoint that is undamaged, to go on from; damaged ones are reported."""
        for path in reversed(self.saved()):
            try:
                load(path)
            except DamagedCheckpoint as error:
                log.warning("%s", error)
            else:
                return path
        if self.saved():
            log.warning("no checkpoint in %s can be used: starting from the beginning", self.checkpoints)
        return None

    def tidy(self, step: int, keep: int) -> None:
        """Remove all checkpoints but the newest `keep` up to `step`; later ones are damaged."""
        saved = self.saved()
        wanted = [path for path in saved if path <= self.checkpoint(step)][-keep:]
        for path in saved:
            if path not in wanted:
                path.unlink()

    def acquire(self) -> None:
        """Become the one process that writes here; the lock ends with the process.

        Raises:
            UserError: Another process runs here, or the directory cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            self._owner.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
        except Timeout:
            raise UserError(f"another process is running {self.path}: {self._describe_owner()}") from None
        except OSError as error:
            raise UserError(f"cannot write to the run directory {self.path}: {error.strerror}") from error

    def release(self) -> None:
        """Let other processes write here."""
        self._lock.release()

    def _describe_owner(self) -> str:
        try:
            owner = json.loads(self._owner.read_text())
            return f"process {owner['pid']} on host {owner['host']}; wait for it or stop it"
        except (OSError, ValueError):
            return "its owner is just starting"


def unused(path: Path) -> Path:
    """The path itself, or with the first number that makes it new: `run`, `run-2`, `run-3`."""
    number = 1
    candidate = path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate
