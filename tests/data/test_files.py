import os

import pytest
import torch
from safetensors.torch import save_file

from granprune.data import files
from granprune.errors import UserError

SHAPE = (1, 2, 3)


def tensors(train=4, test=2):
    """A valid data set of 3 classes."""
    return {
        "train_images": torch.arange(train * 6).view(train, *SHAPE).to(torch.uint8),
        "train_labels": torch.arange(train) % 3,
        "test_images": torch.zeros(test, *SHAPE, dtype=torch.uint8),
        "test_labels": torch.zeros(test, dtype=torch.int64),
    }


def never():
    raise AssertionError("fetched although the file is there")


def test_make_writes_what_was_fetched(tmp_path):
    path = tmp_path / "new" / "folder" / "toy.safetensors"
    files.make(path, tensors)
    found, _ = files.read(path)
    assert found.keys() == tensors().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors().items())


def test_make_uses_the_file_that_is_there(tmp_path):
    path = tmp_path / "toy.safetensors"
    files.make(path, tensors)
    files.make(path, never)


def test_make_uses_the_file_that_another_process_made_while_this_one_waited(tmp_path, monkeypatch):
    path = tmp_path / "toy.safetensors"

    class Waited(files.FileLock):
        def __enter__(self):
            files.write(path, tensors())
            return super().__enter__()

    monkeypatch.setattr(files, "FileLock", Waited)
    files.make(path, never)
    assert path.exists()


def test_write_leaves_nothing_half_done(tmp_path, monkeypatch):
    path = tmp_path / "toy.safetensors"

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write(path, tensors())
    assert not list(tmp_path.iterdir())


def test_read_gives_metadata(tmp_path):
    save_file(tensors(), tmp_path / "toy.safetensors", {"note": "lossy"})
    assert files.read(tmp_path / "toy.safetensors")[1] == {"note": "lossy"}


def test_read_gives_memory_of_its_own(tmp_path):
    path = tmp_path / "toy.safetensors"
    files.write(path, tensors())
    found, _ = files.read(path)
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        file.write(bytes(size))
    assert torch.equal(found["train_images"], tensors()["train_images"])


def truncate(path):
    path.write_bytes(path.read_bytes()[:-10])


def scramble(path):
    path.write_bytes(b"not safetensors at all")


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [truncate, scramble, replace_by_folder, os.remove])
def test_read_refuses_what_is_no_whole_file(tmp_path, damage):
    path = tmp_path / "toy.safetensors"
    files.write(path, tensors())
    damage(path)
    with pytest.raises(UserError) as error:
        files.read(path)
    message = str(error.value)
    assert message.startswith(f"cannot read {path} (") and "train_images" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_labels": None}, "x has no tensor test_labels; expected int64 of shape (N,)"),
        (
            {"train_images": torch.zeros(4, *SHAPE)},
            "x: train_images is float32 (4, 1, 2, 3); expected uint8 of shape (N, 1, 2, 3)",
        ),
        (
            {"train_images": torch.zeros(4, 2, 3, 1, dtype=torch.uint8)},
            "x: train_images is uint8 (4, 2, 3, 1); expected uint8 of shape (N, 1, 2, 3)",
        ),
        ({"test_labels": torch.zeros(2)}, "x: test_labels is float32 (2,); expected int64 of shape (N,)"),
        (
            {"test_images": torch.zeros(0, *SHAPE, dtype=torch.uint8)},
            "x: test_images is uint8 (0, 1, 2, 3); expected uint8 of shape (N, 1, 2, 3)",
        ),
        ({"train_labels": torch.zeros(3, dtype=torch.int64)}, "x has 4 train_images but 3 train_labels"),
        ({"train_labels": torch.tensor([0, 1, 2, 3])}, "x: train_labels are not all within 0..2"),
        ({"test_labels": torch.tensor([0, -1])}, "x: test_labels are not all within 0..2"),
    ],
)
def test_check_names_what_is_wrong(changes, message):
    wrong = {name: tensor for name, tensor in (tensors() | changes).items() if tensor is not None}
    with pytest.raises(UserError) as error:
        files.check(wrong, "x", SHAPE, 3)
    assert str(error.value) == message


def test_check_accepts_what_is_right():
    files.check(tensors(), "x", SHAPE, 3)
