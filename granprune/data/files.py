"""Data sets on disk: one safetensors file each, made once from the official files."""

import os
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from tempfile import TemporaryFile

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from granprune.errors import UserError

Tensors = dict[str, Tensor]

# What torchvision raises for official files that are out of reach or broken, and the disk for a full one.
SOURCE_ERRORS = (
    OSError,
    RuntimeError,
    ValueError,
    AssertionError,
    EOFError,
    UnpicklingError,
    HTTPException,
    SafetensorError,
)


def official(dataset: str, folder: Path) -> Tensors:
    """Both parts of a torchvision data set, by its class name.

    Official files that lie in `folder` as torchvision lays them out are used; otherwise they are
    downloaded there, with a progress bar, and their checksums compared.

    Raises:
        OSError, RuntimeError, ...: One of `SOURCE_ERRORS`, if the files cannot be had.
    """
    from torchvision import datasets  # only a first run needs it

    tensors = {}
    for part in "train", "test":
        source = getattr(datasets, dataset)(folder, train=part == "train", download=True)
        images = torch.as_tensor(source.data)
        images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
        tensors[f"{part}_images"] = images.contiguous()
        tensors[f"{part}_labels"] = torch.as_tensor(source.targets)
    return tensors


def make(path: Path, fetch: Callable[[], Tensors]) -> None:
    """Fetch a data set and write it to `path`, unless it is there; processes that meet here wait for one.

    Raises:
        OSError, RuntimeError, ...: One of `SOURCE_ERRORS`.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=path.parent):
        pass  # fails at once where no file can be made; a lock would be waited for there
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            write(path, fetch())


def write(path: Path, tensors: Tensors) -> None:
    """Write a data set so that `path` never shows half of it; nothing is left behind on failure."""
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        save_file(tensors, unfinished)
        with open(unfinished, "rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def read(path: Path) -> tuple[Tensors, dict[str, str]]:
    """The tensors of a data set, in memory of their own, and the file's metadata.

    Raises:
        UserError: The file is missing, not readable or not a whole safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            # Copies, since the originals are the mapped file: changing that would crash the run.
            return {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"cannot read {path} ({first_line(error)}); it should be a safetensors file with train_images, "
            "train_labels, test_images and test_labels"
        ) from error


def check(tensors: Tensors, where: str, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Check that a data set has the tensors, types, shapes and labels it should have.

    Args:
        tensors: What was found.
        where: The file or class it comes from, for the message.
        image_shape: Channels, height and width that the images should have.
        num_classes: Labels should be below this.

    Raises:
        UserError: The first thing that is wrong.
    """
    for part in "train", "test":
        for kind, dtype, shape in ("images", torch.uint8, image_shape), ("labels", torch.int64, ()):
            name = f"{part}_{kind}"
            expected = f"expected {str(dtype)[6:]} of shape {('N', *shape)}".replace("'", "")
            if name not in tensors:
                raise UserError(f"{where} has no tensor {name}; {expected}")
            found = tensors[name]
            if found.dtype != dtype or found.shape[1:] != shape or not len(found):
                raise UserError(f"{where}: {name} is {str(found.dtype)[6:]} {tuple(found.shape)}; {expected}")
        images, labels = tensors[f"{part}_images"], tensors[f"{part}_labels"]
        if len(images) != len(labels):
            raise UserError(f"{where} has {len(images)} {part}_images but {len(labels)} {part}_labels")
        if labels.min() < 0 or labels.max() >= num_classes:
            raise UserError(f"{where}: {part}_labels are not all within 0..{num_classes - 1}")


def first_line(error: BaseException) -> str:
    """An error's type and the first line of what it says."""
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
