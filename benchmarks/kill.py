"""Kill runs at random instants, start them again, and compare the end with an undisturbed run.

    python -m benchmarks.kill --kills 100

Each case runs once undisturbed; then it runs again and again, a process ended by SIGKILL at a
random place, until it is through. Weights, masks, optimizer state, metrics file and result must be
the same bit for bit (times apart). Processes are forked from one that has imported everything and
run nothing: a fork of a process with threads may wait for ever for a thread that it does not have.
"""

import argparse
import json
import logging
import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from joblib import wrap_non_picklable_objects

PRELOADED = ["granprune.cli", "matplotlib.backends.backend_agg", "sklearn.datasets"]
CONFIG = Path(__file__).with_name("kill.yaml")
SLOWER = "--model.optimizer.init_args.lr=0.1"
CONVOLUTIONS = (
    "--model.network=ResNet20",
    "--model.network.init_args.width=4",
    "--model.network.init_args.in_channels=1",
    SLOWER,
)
DROPOUT = ("--model.network=benchmarks.dropout.DropoutNet", SLOWER)
ADAM = ("--model.optimizer=Adam", "--model.optimizer.init_args.lr=0.02")
SNIP = ("--pruning.criterion=SNIP", "--pruning.criterion.num_samples=100")
TWO_RANKS = ("--trainer.strategy=ddp", "--trainer.devices=2")
CASES: dict[str, tuple[str, ...]] = {
    "weights-magnitude-accumulate": ("--trainer.accumulate_grad_batches=3",),
    "weights-magnitude-dropout": DROPOUT,
    "weights-snip-adam": (*SNIP, *ADAM),
    "weights-random-rewind": ("--pruning.criterion=Random", "--pruning.schedule.init_args.rewind_step=9"),
    "weights-inverted-layerwise": (
        "--pruning.criterion=Inverted",
        "--pruning.criterion.criterion=Magnitude",
        "--pruning.scope=Layerwise",
        "--trainer.accumulate_grad_batches=2",
    ),
    "nodes-statistical-two-ranks": (
        *DROPOUT,
        *TWO_RANKS,
        "--model.granularity=Nodes",
        "--pruning.criterion=Statistical",
    ),
    "weights-movement-gradual": (
        *ADAM,
        "--pruning.criterion=MovementSum",
        "--pruning.schedule=Gradual",
        "--pruning.schedule.init_args.rounds=5",
        "--pruning.schedule.init_args.every=4",
    ),
    "nodes-at-init": ("--model.granularity=Nodes", "--pruning.schedule=AtInit", "--pruning.criterion=Random"),
    "kernels-snip": (*CONVOLUTIONS, *SNIP, "--model.granularity=Kernels"),
    "channels-statistical": (
        *CONVOLUTIONS,
        "--model.granularity=Channels",
        "--pruning.criterion=Statistical",
        "--pruning.scope=ByRole",
    ),
    "channels-magnitude-rewind": (
        *CONVOLUTIONS,
        *ADAM,
        "--model.granularity=Channels",
        "--pruning.scope=Layerwise",
        "--pruning.schedule.init_args.rewind_step=4",
    ),
    "weights-snip-two-ranks": (*TWO_RANKS, *SNIP, *ADAM, "--pruning.schedule.init_args.rewind_step=3"),
}
PLACES = {  # how often each is passed in a run, at least: where to draw the instant from
    "any instant": 60,
    "batch start": 80,
    "batch end": 80,
    "validation": 40,
    "row written": 12,
    "evaluation end": 12,
    "pruning": 1,
    "rewinding": 1,
    "flush to disk": 60,
    "rename": 20,
    "epoch end": 6,
}
GRACE = 30.0  # seconds that the other ranks have to notice that one has died
PATIENCE = 300.0  # seconds until a run is given up that must have ended
Prepare = Callable[[], None]  # done in a new process before the command starts


def fit_arguments(case: str, root: Path) -> list[str]:
    """The command line of a case, kept under `root`."""
    return ["fit", f"--config={CONFIG}", *CASES[case], f"--run.root={root}"]


def run(arguments: Sequence[str], log: Path, prepare: Prepare | None = None, victim: int = 0) -> list[int]:
    """Run a command to its end, one process a rank.

    Args:
        arguments: The words after `granprune`; `--trainer.devices=N` makes N ranks.
        log: File that standard output is added to; standard error is added to `errors_of(log)`.
        prepare: Called in the process of the rank `victim` before it starts.
        victim: The rank to prepare.

    Returns:
        The exit codes of the ranks; negative if a signal ended one, as it does to ranks that have not
        noticed the end of another.
    """
    places = rank_environments(_ranks(arguments))
    processes = [
        start(arguments, log, prepare if rank == victim else None, place) for rank, place in enumerate(places)
    ]
    running = {process.sentinel for process in processes}
    end = monotonic() + PATIENCE
    while running and not any(process.exitcode for process in processes) and monotonic() < end:
        running -= set(wait(running, PATIENCE))
    for process in processes:
        process.join(GRACE)
        process.kill()
        process.join()
    return [process.exitcode or 0 for process in processes]


def start(
    arguments: Sequence[str],
    log: Path,
    prepare: Prepare | None = None,
    environment: Mapping[str, str] | None = None,
) -> BaseProcess:
    """Start a command in a process of its own, with the variables of this one and some more."""
    return call(_command, arguments, log, prepare, {**os.environ, **(environment or {})})


def call(function: Callable[..., None], *args: Any) -> BaseProcess:
    """Call a function in a process that has imported what a run needs."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOADED)
    wrapped = [wrap_non_picklable_objects(arg) if callable(arg) else arg for arg in (function, *args)]
    process = server.Process(target=wrapped[0], args=wrapped[1:])
    process.start()
    return process


def errors_of(log: Path) -> Path:
    """Where the standard error of a run with that log goes."""
    return log.with_suffix(".errors")


def rank_environments(ranks: int) -> list[dict[str, str]]:
    """The variables by which torchrun tells each process its place; none for a single one."""
    if ranks == 1:
        return [{}]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    common = {
        "GROUP_RANK": "0",
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "kill",
        "WORLD_SIZE": str(ranks),
    }
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


def kill_at(place: str, after: int) -> Prepare:
    """Die when a place in the code, one of `PLACES`, is passed once more than `after` times."""
    return lambda: _kill_at(place, after)


def call_at(owner: Any, name: str, after: int, action: Callable[..., None]) -> None:
    """Call `action` before `owner.name`, with the same arguments, once that has been called `after` times."""
    original = getattr(owner, name)
    left = [after]

    def passed(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == -1:
            action(*args, **kwargs)
        return original(*args, **kwargs)

    setattr(owner, name, passed)


def _ranks(arguments: Sequence[str]) -> int:
    key = "--trainer.devices="
    return next((int(word.removeprefix(key)) for word in arguments if word.startswith(key)), 1)


def _command(
    arguments: Sequence[str], log: Path, prepare: Prepare | None, environment: Mapping[str, str]
) -> None:
    from granprune.__main__ import main

    for descriptor, path in (1, log), (2, errors_of(log)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), descriptor)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
    logging.root.handlers.clear()
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    if prepare is not None:
        prepare()
    sys.argv = ["granprune", *arguments]
    sys.exit(main(list(arguments)))


def _kill_at(place: str, after: int) -> None:
    def die(*unused: Any, **unused_too: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if place == "any instant":
        signal.signal(signal.SIGALRM, die)
        signal.setitimer(signal.ITIMER_REAL, 0.3 + after * 0.05)
    else:
        call_at(*places()[place], after, die)


def places() -> dict[str, tuple[Any, str]]:
    """What is called at each place of `PLACES`: a class or module, and the name of its function."""
    import granprune.callback
    import granprune.masking
    import granprune.rewind
    import granprune.run.checkpoint_io as checkpoint_io
    import granprune.run.record as record
    from granprune.run.checkpoint import Checkpointing

    return {
        "batch start": (record.Recorder, "on_train_batch_start"),
        "batch end": (Checkpointing, "on_train_batch_end"),
        "validation": (granprune.callback.IterativePruning, "on_validation_batch_end"),
        "row written": (record, "append_row"),
        "evaluation end": (Checkpointing, "on_validation_end"),
        "pruning": (granprune.masking.MaskedModel, "set_masks"),
        "rewinding": (granprune.rewind.Snapshot, "restore"),
        "flush to disk": (checkpoint_io.os, "fsync"),
        "rename": (checkpoint_io.os, "replace"),
        "epoch end": (Checkpointing, "on_train_epoch_end"),
    }


def outcome(root: Path) -> dict[str, Any]:
    """Everything a finished run leaves that must not depend on interruptions."""
    (directory,) = (path for path in root.iterdir() if path.is_dir())
    newest = sorted(directory.glob("checkpoints/step=*.ckpt"))[-1]
    state = torch.load(newest, weights_only=True)
    result = json.loads((directory / "result.json").read_text())
    result.pop("training_seconds")
    return {
        "checkpoint": newest.name,
        "weights and masks": state["state_dict"],
        "optimizer": state["optimizer_states"],
        "metrics": (directory / "metrics.jsonl").read_bytes(),
        "result": result,
    }


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Where two outcomes differ, tensors compared bit for bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.shape == b.shape and a.dtype == b.dtype and bool((a == b).all())
        return [] if same else [where]
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [d for key in a for d in differences(a[key], b[key], f"{where}/{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [
            d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{where}/{i}")
        ]
    return [] if a == b else [where]


def torture(
    case: str, reference: dict[str, Any], folder: Path, draw: random.Random, kills: int
) -> tuple[int, list[str]]:
    """Run a case with up to that many kills, to its end.

    Returns:
        How many kills hit, and where the end differs from the reference.
    """
    arguments = fit_arguments(case, folder / f"{case}-{draw.random()}")
    log = folder / "log.txt"
    hit = 0
    for _ in range(kills):
        place = draw.choice(list(PLACES))
        prepare = kill_at(place, draw.randrange(PLACES[place]))
        victim = draw.randrange(_ranks(arguments))
        codes = run(arguments, log, prepare, victim)
        if not any(codes):
            break
        if codes[victim] != -signal.SIGKILL:
            return hit, [f"exit codes {codes}, see {errors_of(log)}"]
        hit += 1
    codes = run(arguments, log)
    if any(codes):
        return hit, [f"exit codes {codes} at the end, see {errors_of(log)}"]
    return hit, differences(reference, outcome(Path(arguments[-1].removeprefix("--run.root="))))


def main() -> int:
    """Run the benchmark; 0 if every killed run ended like its undisturbed twin."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, help="how many processes to kill (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the places and instants (default 0)")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="granprune-kill-"))
    references: dict[str, dict[str, Any]] = {}
    killed = identical = runs = 0
    while killed < options.kills:
        case = list(CASES)[runs % len(CASES)]
        if case not in references:
            codes = run(fit_arguments(case, folder / case), folder / "log.txt")
            assert not any(codes), f"exit codes {codes}, see {folder}"
            references[case] = outcome(folder / case)
        hit, different = torture(case, references[case], folder, draw, min(5, options.kills - killed))
        runs += 1
        killed += hit
        identical += 0 if different else hit
        print(
            f"{case:32} {hit} kills  {'DIFFERS: ' + ', '.join(different[:3]) if different else 'identical'}",
            flush=True,
        )
    print(f"{identical} of {killed} kills left no trace, in {runs} runs")
    return 0 if identical == killed else 1


if __name__ == "__main__":
    sys.exit(main())
