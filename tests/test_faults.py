"""What can go wrong around a run: it ends with one line, loses nothing, and goes on exactly."""

import ctypes
import json
import os
import pickle
import resource
import signal
import socket
import time
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file

from benchmarks import kill
from granprune.run.checkpoint_io import load, seal
from granprune.run.preemption import EXIT_INTERRUPTED

SHORT = (  # 12 + 12 steps, evaluated at 7, 12, 14, 21 and 24, saved every 5 and at 12 and 24
    f"--config={kill.CONFIG}",
    "--model.network=benchmarks.dropout.DropoutNet",
    "--model.optimizer.init_args.lr=0.1",
    "--pruning.schedule.init_args.rounds=1",
    "--pruning.schedule.init_args.steps=12",
)
MNIST = ("--data=MNIST", "--data.batch_size=50", "--model.network.init_args.in_features=784")
ACCUMULATING = "--trainer.accumulate_grad_batches=3"


class Run:
    """A run in a folder of its own, made of as many processes as it takes."""

    def __init__(self, folder, *options):
        self.folder = folder
        self.log = folder / "log.txt"
        self.arguments = ["fit", *SHORT, *options, f"--run.root={folder / 'runs'}"]

    def go(self, prepare=None, *, expect=0):
        """Start it; return the lines on standard error, less those about a resume."""
        kill.errors_of(self.log).unlink(missing_ok=True)
        (code,) = kill.run(self.arguments, self.log, prepare)
        lines = kill.errors_of(self.log).read_text().splitlines()
        assert code == expect, lines
        return [line for line in lines if not line.startswith("granprune: going on from /")]

    def fail(self, prepare=None, *, expect=1):
        """Start it, let it fail; return its one line."""
        (line,) = self.go(prepare, expect=expect)
        return line

    @property
    def directory(self):
        (path,) = (self.folder / "runs").iterdir()
        return path

    @property
    def steps(self):
        """Steps of the checkpoints, of which each must be whole."""
        return [load(path)["global_step"] for path in self.files]

    @property
    def files(self):
        return sorted(self.directory.glob("checkpoints/*"))

    @property
    def rows(self):
        return (self.directory / "metrics.jsonl").read_text().splitlines()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Options -> what the run leaves when nothing happens to it."""
    outcomes = {}

    def outcome(*options):
        if options not in outcomes:
            run = Run(tmp_path_factory.mktemp("undisturbed"), *options)
            assert run.go() == []
            outcomes[options] = kill.outcome(run.folder / "runs")
        return outcomes[options]

    return outcome


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


@pytest.fixture
def goes_on(undisturbed):
    """Checks that a run, started again, ends as if nothing had happened; returns what it says."""

    def check(run, *options):
        lines = run.go()
        assert kill.differences(undisturbed(*options), kill.outcome(run.folder / "runs")) == []
        return lines

    return check


def cut_short(run):
    """Kill it after step 13, with checkpoints of steps 10 and 12."""
    run.go(kill.kill_at("batch end", 13), expect=-signal.SIGKILL)
    assert run.steps == [10, 12]


# Damaged checkpoints


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def poison(path):
    """A well-formed checkpoint of ours that holds a call of `os.mkdir`."""
    poisoned = load(path) | {"extra": Payload(str(path.parent / "run by pickle"))}
    torch.save(poisoned, path)
    path.write_bytes(seal(path.read_bytes()))


class Payload:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize(
    "damage, words",
    [
        (truncate, "is damaged: its checksum does not match"),
        (empty, "is damaged: its checksum does not match"),
        (flip, "is damaged: its checksum does not match"),
        (poison, "is refused: it holds more than tensors and plain values"),
    ],
)
def test_a_bad_checkpoint_is_reported_and_the_one_before_used(damage, words, run, goes_on):
    cut_short(run)
    damage(run.files[-1])
    (line,) = goes_on(run)
    assert words in line and "step=00000012.ckpt" in line and len(line.splitlines()) == 1
    assert run.steps == [20, 24]


def test_without_a_good_checkpoint_a_run_starts_over_and_says_so(run, goes_on):
    cut_short(run)
    for path in run.files:
        flip(path)
    *damaged, last = goes_on(run)
    assert len(damaged) == 2 and "starting from the beginning" in last


@pytest.mark.parametrize("damage", [truncate, flip, poison])
def test_a_bad_checkpoint_that_is_asked_for_is_refused(damage, run):
    cut_short(run)
    damage(run.files[-1])
    run.arguments.append(f"--ckpt_path={run.files[-1]}")
    assert run.fail(expect=2).startswith(f"granprune: error: checkpoint {run.files[-1]} is ")
    assert not list(run.directory.rglob("run by pickle"))


def test_payloads_would_run_if_they_were_loaded(tmp_path):
    pickle.loads(pickle.dumps(Payload(str(tmp_path / "run by pickle"))))
    assert (tmp_path / "run by pickle").is_dir()


# Disks


def test_a_full_disk(run, goes_on, undisturbed):
    cut_short(run)
    rows = run.rows
    partial = run.directory / "checkpoints" / ".step=00000020.ckpt.part"
    partial.symlink_to("/dev/full")
    line = run.fail()
    assert (
        line == f"granprune: error: No space left on device: {run.directory}/checkpoints/step=00000020.ckpt"
    )
    assert not partial.is_symlink()
    assert run.steps == [12, 15]
    assert run.rows[: len(rows)] == rows
    assert undisturbed()["metrics"].decode().splitlines()[: len(run.rows)] == run.rows
    assert goes_on(run) == []


def limit_file_size(*unused):
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))


def test_a_row_that_finds_no_space(run, goes_on, undisturbed):
    def prepare():
        import granprune.run.record

        kill.call_at(granprune.run.record, "append_row", 2, limit_file_size)

    line = run.fail(prepare)
    assert line == f"granprune: error: File too large: {run.directory}/metrics.jsonl"
    assert run.steps == [10, 12]
    whole = undisturbed()["metrics"].decode().splitlines()
    assert run.rows[:2] == whole[:2] and whole[2].startswith(run.rows[2]) and len(run.rows[2]) > 0
    assert goes_on(run) == []


def obey_permissions():
    """Drop all capabilities, so that root as well may write only where permissions say so."""
    version, this_process = 0x20080522, 0
    header, nothing = (ctypes.c_uint32 * 2)(version, this_process), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset(header, nothing) == 0


@contextmanager
def read_only(folder):
    folder.chmod(0o555)
    try:
        yield
    finally:
        folder.chmod(0o755)


def test_a_folder_that_cannot_be_written(run):
    (run.folder / "runs").mkdir()
    with read_only(run.folder / "runs"):
        line = run.fail(obey_permissions, expect=2)
    assert line.startswith(f"granprune: error: cannot write to the run directory {run.folder}/runs/digits-")
    assert line.endswith(": Permission denied")


def test_a_folder_that_turns_read_only(run, goes_on):
    cut_short(run)
    rows = run.rows
    with read_only(run.directory / "checkpoints"):
        line = run.fail(obey_permissions)
        assert line == f"granprune: error: Permission denied: {run.directory}/checkpoints/step=00000015.ckpt"
    assert run.steps == [10, 12] and run.rows[: len(rows)] == rows
    assert goes_on(run) == []


def without_network():
    import granprune.data.mnist

    def official(*unused):
        raise OSError("no route to host")

    granprune.data.files.official = official


def test_a_data_file_that_vanishes(tmp_path):
    generator = torch.Generator().manual_seed(0)
    data = tmp_path / "data" / "mnist.safetensors"
    data.parent.mkdir()
    tensors = {}
    for part in "train", "test":
        tensors[f"{part}_images"] = torch.randint(256, (500, 1, 28, 28), generator=generator).to(torch.uint8)
        tensors[f"{part}_labels"] = torch.arange(500) % 10
    save_file(tensors, data)
    options = (*MNIST, f"--data.data_dir={data.parent}")
    whole, run = (Run(tmp_path / name, *options) for name in ("whole", "cut"))
    for each in whole, run:
        each.folder.mkdir()
    whole.go(without_network)
    run.go(kill.kill_at("batch end", 13), expect=-signal.SIGKILL)
    before = {path: path.read_bytes() for path in [*run.files, run.directory / "metrics.jsonl"]}

    data.rename(tmp_path / "aside")
    line = run.fail(without_network, expect=2)
    assert line.startswith(
        f"granprune: error: no mnist data in folder {data.parent}: expected mnist.safetensors"
    )
    assert line.endswith("(OSError: no route to host)")
    assert {path: path.read_bytes() for path in before} == before

    (tmp_path / "aside").rename(data)
    run.go(without_network)
    assert kill.differences(kill.outcome(whole.folder / "runs"), kill.outcome(run.folder / "runs")) == []


def test_a_data_folder_where_nothing_can_be_made(tmp_path):
    line = Run(tmp_path, *MNIST, "--data.data_dir=/proc/1").fail(expect=2)
    assert line.startswith("granprune: error: no mnist data in folder /proc/1: expected ")


# Numbers


def fill_with_nan(module, *unused):
    with torch.no_grad():
        module.network.network.head.bias.fill_(float("nan"))


def test_a_loss_that_is_not_a_number(run, goes_on):
    def prepare():
        from granprune.classifier import Classifier

        kill.call_at(Classifier, "training_step", 13, fill_with_nan)

    line = run.fail(prepare, expect=2)
    assert line.startswith("granprune: error: the training loss is nan at step 13: lower the learning rate")
    assert run.steps == [10, 12] and len(run.rows) == 2
    assert goes_on(run) == []


def test_an_evaluation_that_is_not_a_number(run, goes_on):
    def prepare():
        from granprune.classifier import Classifier

        kill.call_at(Classifier, "on_validation_epoch_start", 2, fill_with_nan)

    line = run.fail(prepare, expect=2)
    assert line.startswith("granprune: error: test_loss is nan at step 14: ")
    assert run.steps == [10, 12] and len(run.rows) == 2
    assert goes_on(run) == []


# Other processes


def test_a_second_process_is_refused_and_a_dead_one_succeeded(run, goes_on):
    def prepare():
        from granprune.run.record import Recorder

        kill.call_at(Recorder, "on_train_batch_start", 13, lambda *unused: signal.pause())

    first = kill.start(run.arguments, run.log, prepare)
    try:
        while not list(run.folder.glob("runs/*/checkpoints/step=00000012.ckpt")):
            assert first.is_alive()
            time.sleep(0.05)
        line = run.fail(expect=2)
        assert line == (
            f"granprune: error: another process is running {run.directory}: "
            f"process {first.pid} on host {socket.gethostname()}; wait for it or stop it"
        )
    finally:
        first.kill()
        first.join()
    assert run.steps == [10, 12]
    goes_on(run)


# Signals


def send(signum):
    return lambda *unused: os.kill(os.getpid(), signum)


def signalled(place, after, signum):
    return lambda: kill.call_at(*kill.places()[place], after, send(signum))


@pytest.mark.parametrize(
    "signum, place, after, options, stopped, saved",
    [
        (signal.SIGTERM, "validation", 5, (), 12, [10, 12]),  # 3 batches an evaluation
        (signal.SIGTERM, "validation", 7, (), 14, [12, 14]),
        (signal.SIGINT, "batch start", 13, (), 14, [12, 14]),
        (signal.SIGUSR1, "batch end", 8, (), 9, [5, 9]),
        (signal.SIGTERM, "batch start", 21, (ACCUMULATING,), 8, [5, 8]),  # first of 3 batches of step 8
        (signal.SIGTERM, "batch end", 19, (ACCUMULATING,), 7, [5, 7]),  # second of 3 batches of step 7
    ],
)
def test_a_signal_saves_and_stops(signum, place, after, options, stopped, saved, tmp_path, goes_on):
    run = Run(tmp_path, *options)
    line = run.fail(signalled(place, after, signum), expect=EXIT_INTERRUPTED)
    assert line == (
        f"granprune: stopped by {signum.name} after step {stopped}, saved in {run.directory}; "
        f"run the same command again to go on"
    )
    assert run.steps == saved
    assert goes_on(run, *options) == []


def test_a_second_interrupt_stops_at_once(run, goes_on):
    def prepare():
        from granprune.run.record import Recorder

        kill.call_at(
            Recorder, "on_train_batch_start", 13, lambda *unused: [send(signal.SIGINT)() for _ in "12"]
        )

    line = run.fail(prepare, expect=130)
    assert line == "granprune: error: stopped at once; the same command goes on from what is saved"
    assert run.steps == [10, 12]
    goes_on(run)


def test_slurm_requeues_the_job(run, goes_on, monkeypatch):
    programs = run.folder / "programs"
    programs.mkdir()
    (programs / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {run.folder}/scontrol.txt\n')
    (programs / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for key, value in {"JOB_ID": "4711", "JOB_NAME": "train", "NTASKS": "1"}.items():
        monkeypatch.setenv(f"SLURM_{key}", value)
    for key in "PROCID", "LOCALID", "NODEID":
        monkeypatch.setenv(f"SLURM_{key}", "0")

    line = run.fail(signalled("batch start", 13, signal.SIGUSR1), expect=EXIT_INTERRUPTED)
    assert line.startswith("granprune: stopped by SIGUSR1 after step 14, saved in ")
    assert (run.folder / "scontrol.txt").read_text() == "requeue 4711\n"
    assert run.steps == [12, 14]
    assert not list(run.directory.glob("hpc_ckpt*"))
    assert goes_on(run) == []

    (run.folder / "scontrol.txt").unlink()
    other = Run(programs)
    other.fail(signalled("batch start", 13, signal.SIGTERM), expect=EXIT_INTERRUPTED)
    assert not (run.folder / "scontrol.txt").exists(), "only the requeue signal requeues"


# Kills in the middle of a change


def test_a_kill_halfway_through_a_checkpoint(run, goes_on):
    def half(path, data):
        path.with_name(f".{path.name}.part").write_bytes(data[: len(data) // 2])
        send(signal.SIGKILL)()

    def prepare():
        import granprune.run.checkpoint_io

        kill.call_at(granprune.run.checkpoint_io, "write_atomically", 3, half)  # after 5, 10 and 12

    run.go(prepare, expect=-signal.SIGKILL)
    partial = run.directory / "checkpoints" / ".step=00000015.ckpt.part"
    assert partial.exists()
    assert [load(path)["global_step"] for path in sorted(run.directory.glob("checkpoints/step=*"))] == [
        10,
        12,
    ]
    assert goes_on(run) == []
    assert not partial.exists()


def test_a_kill_halfway_through_pruning(run, goes_on):
    def half(model, masks):
        name, mask = next(iter(masks.items()))
        assert not mask.all(), "something is pruned"
        model.masks[name].copy_(mask)
        send(signal.SIGKILL)()

    def prepare():
        from granprune.masking import MaskedModel

        kill.call_at(MaskedModel, "set_masks", 0, half)

    run.go(prepare, expect=-signal.SIGKILL)
    masks = [value for key, value in load(run.files[-1])["state_dict"].items() if key.endswith(".mask")]
    assert run.steps == [10, 12] and masks and all(mask.all() for mask in masks)
    assert goes_on(run) == []


# Tracking


@pytest.mark.slow
def test_an_offline_run_goes_on_under_its_id(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path))
    run = Run(tmp_path, "--wandb.enabled=true")
    run.go(kill.kill_at("batch end", 17), expect=-signal.SIGKILL)
    run.go()
    parts = sorted(run.directory.glob("wandb/offline-run-*"))
    assert len(parts) == 2
    assert len({part.name.split("-", 4)[-1] for part in parts}) == 1, "both have the same id"
    assert [json.loads(row)["step"] for row in run.rows] == [7, 12, 14, 21, 24]
