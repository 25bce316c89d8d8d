"""Checkpoint files that are whole or absent, and that carry their own checksum.

A file is an ordinary `torch.save` archive whose ZIP comment is the SHA-256 of all bytes before it,
so that `torch.load` still reads it and any truncation or flipped byte shows.
"""

import hashlib
import io
import os
import pickle
import zipfile
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from granprune.errors import UserError

DIGEST = 64  # hexadecimal digits of SHA-256


class DamagedCheckpoint(UserError):
    """The file is not what was written."""


class SealedCheckpointIO(TorchCheckpointIO):
    """Write atomically beside the target, verify on reading, never unpickle code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomically(Path(path), seal(buffer.getvalue()))

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return load(path, map_location)


def load(path: str | PathLike[str], map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint: tensors and plain values only.

    Args:
        path: The file.
        map_location: Device to put tensors on, as in `torch.load`.

    Raises:
        DamagedCheckpoint: The file is missing, truncated, altered, or holds code to be run.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DamagedCheckpoint(f"cannot read checkpoint {path}: {error.strerror}") from error
    if not is_sealed(data):
        raise DamagedCheckpoint(
            f"checkpoint {path} is damaged: its checksum does not match (truncated, altered, or not ours)"
        )
    try:
        return torch.load(io.BytesIO(data), map_location, weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError) as error:
        raise DamagedCheckpoint(
            f"checkpoint {path} is refused: it holds more than tensors and plain values"
        ) from error


def seal(archive: bytes) -> bytes:
    """Append the archive's checksum as its ZIP comment."""
    assert archive.endswith(b"\0\0"), "an archive without a comment ends in its comment's length, 0"
    body = archive[:-2] + DIGEST.to_bytes(2, "little")
    return body + hashlib.sha256(body).hexdigest().encode()


def is_sealed(data: bytes) -> bool:
    """Whether the last bytes are the checksum of the rest."""
    return hashlib.sha256(data[:-DIGEST]).hexdigest().encode() == data[-DIGEST:]


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that at every instant either the old or the whole new one is there.

    Raises:
        OSError: It cannot be written; `filename` is the file, also if the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the rename itself
    finally:
        os.close(directory)
