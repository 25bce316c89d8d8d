import json
import multiprocessing
import os
import pickle
import socket

import pytest

from granprune.errors import UserError
from granprune.run.checkpoint_io import SealedCheckpointIO
from granprune.run.directory import RunDirectory, unused


@pytest.fixture
def directory(tmp_path):
    return RunDirectory(tmp_path / "runs" / "a")


def save(directory, *steps):
    for step in steps:
        SealedCheckpointIO().save_checkpoint({"step": step}, directory.checkpoint(step))


def names(directory):
    return [path.name for path in directory.saved()]


def test_the_newest_checkpoint_is_the_latest(directory):
    assert directory.latest() is None
    save(directory, 9, 100, 20)
    assert names(directory) == ["step=00000009.ckpt", "step=00000020.ckpt", "step=00000100.ckpt"]
    assert directory.latest() == directory.checkpoint(100)


def test_damaged_checkpoints_are_reported_and_passed_over(directory, caplog):
    save(directory, 1, 2, 3)
    for step in 2, 3:
        directory.checkpoint(step).write_bytes(b"damaged")
    assert directory.latest() == directory.checkpoint(1)
    assert [step in message for message, step in zip(caplog.messages, ("00000003", "00000002"), strict=True)]
    directory.checkpoint(1).write_bytes(b"damaged")
    assert directory.latest() is None
    assert "starting from the beginning" in caplog.messages[-1]


def test_unfinished_files_are_no_checkpoints(directory):
    save(directory, 1)
    (directory.checkpoints / ".step=00000002.ckpt.part").write_bytes(b"half")
    assert names(directory) == ["step=00000001.ckpt"]


def test_tidy_keeps_the_newest_up_to_the_step(directory):
    save(directory, 1, 2, 3, 4)
    directory.tidy(3, keep=2)
    assert names(directory) == ["step=00000002.ckpt", "step=00000003.ckpt"]
    directory.tidy(3, keep=5)
    assert len(names(directory)) == 2


def test_it_is_complete_once_there_is_a_result(directory):
    directory.path.mkdir(parents=True)
    assert not directory.complete
    directory.result.write_text("{}")
    assert directory.complete


def hold(path, ready):
    directory = RunDirectory(path)
    directory.acquire()
    ready.set()
    multiprocessing.Event().wait()


def test_one_process_owns_it_as_long_as_it_lives(directory):
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    owner = fork.Process(target=hold, args=(directory.path, ready))
    owner.start()
    ready.wait()
    other = RunDirectory(directory.path)
    with pytest.raises(UserError, match=f"process {owner.pid} on host {socket.gethostname()}; wait for it"):
        other.acquire()
    owner.kill()
    owner.join()
    other.acquire()
    assert json.loads((directory.path / ".owner.json").read_text())["pid"] == os.getpid()
    other.release()
    directory.acquire()
    directory.release()


def test_an_owner_that_has_not_written_its_name_yet(directory):
    directory.acquire()
    (directory.path / ".owner.json").write_text("")
    with pytest.raises(UserError, match="its owner is just starting"):
        RunDirectory(directory.path).acquire()
    directory.release()


def test_a_path_that_cannot_be_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to the run directory .*file/a: Not a directory"):
        RunDirectory(tmp_path / "file" / "a").acquire()


def test_a_copy_in_another_process_does_not_own_it(directory):
    directory.acquire()
    copy = pickle.loads(pickle.dumps(directory))
    assert copy.path == directory.path
    with pytest.raises(UserError):
        copy.acquire()
    directory.release()


def test_unused_numbers_from_two(tmp_path):
    path = tmp_path / "run"
    assert unused(path) == path
    path.mkdir()
    assert unused(path) == tmp_path / "run-2"
    (tmp_path / "run-2").mkdir()
    assert unused(path) == tmp_path / "run-3"
