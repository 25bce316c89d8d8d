import os
from collections import OrderedDict

import pytest
import torch

from granprune.run.checkpoint_io import (
    DamagedCheckpoint,
    SealedCheckpointIO,
    is_sealed,
    load,
    seal,
    write_atomically,
)

STATE = {"step": 3, "weights": OrderedDict(a=torch.arange(3.0)), "masks": [torch.tensor([True, False])]}


@pytest.fixture
def path(tmp_path):
    SealedCheckpointIO().save_checkpoint(STATE, tmp_path / "new folder" / "x.ckpt")
    return tmp_path / "new folder" / "x.ckpt"


def test_what_is_saved_is_read(path):
    for state in load(path), SealedCheckpointIO().load_checkpoint(path), torch.load(path, weights_only=True):
        assert state["step"] == 3
        assert torch.equal(state["weights"]["a"], STATE["weights"]["a"])
        assert torch.equal(state["masks"][0], STATE["masks"][0])
    assert list(path.parent.iterdir()) == [path]


def test_any_truncation_and_any_flipped_bit_shows(path):
    data = path.read_bytes()
    assert is_sealed(data)
    assert not any(is_sealed(data[:length]) for length in range(len(data)))
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 1 << position % 8
        assert not is_sealed(bytes(altered))


@pytest.mark.parametrize("alter", [lambda data: data[:-1], lambda data: b"", lambda data: data + b"\0"])
def test_an_altered_file_is_refused(path, alter):
    path.write_bytes(alter(path.read_bytes()))
    with pytest.raises(DamagedCheckpoint, match=f"checkpoint {path} is damaged"):
        load(path)


def test_an_unsealed_file_is_refused(path):
    torch.save(STATE, path)
    with pytest.raises(DamagedCheckpoint, match="not ours"):
        load(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DamagedCheckpoint, match="No such file or directory"):
        load(tmp_path / "x.ckpt")


class Payload:
    def __reduce__(self):
        return os.mkdir, ("never",)


def test_code_is_refused_however_it_is_asked_for(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    torch.save({**STATE, "extra": Payload()}, path)
    path.write_bytes(seal(path.read_bytes()))
    for read in load, lambda path: SealedCheckpointIO().load_checkpoint(path, weights_only=False):
        with pytest.raises(DamagedCheckpoint, match="holds more than tensors and plain values"):
            read(path)
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_names_it(path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    before = path.read_bytes()
    with pytest.raises(OSError, match="No space left on device") as error:
        write_atomically(path, b"new")
    assert error.value.filename == str(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_the_file_is_on_disk_before_it_gets_its_name(path, monkeypatch):
    events = []
    for name in "fsync", "replace":
        original = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *args, name=name, original=original: (events.append(name), original(*args))
        )
    write_atomically(path, b"new")
    assert events == ["fsync", "replace", "fsync"]
    assert path.read_bytes() == b"new"
