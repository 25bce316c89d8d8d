"""Steps of a real run in turns with a rival: `granprune fit` pauses while the rival has its turn."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any
from unittest.mock import patch

import torch
from lightning.pytorch import Trainer

from benchmarks.checkpoint_overhead import write_images
from benchmarks.fitting import fit
from benchmarks.measure import Clock, Pairs, seconds
from granprune.classifier import Classifier
from granprune.run.record import Recorder

Work = Callable[[], object]
Prepare = Callable[[Trainer, Classifier], Work]  # from a running trainer to one turn of its rival


@dataclass(frozen=True)
class Size:
    """How much to measure.

    A turn is played twice, and the second time counts: after the rival's turn caches and memory are cold.

    Args:
        batch: Images of one step.
        stretch: Steps of one turn, each time.
        repeats: Turns of each rival.
        warmup: Steps before the first turn.
        images: Of the training set.
        pause: Seconds between the rival's turn and ours, for what it still does in other processes.
    """

    batch: int = 128
    stretch: int = 5
    repeats: int = 9
    warmup: int = 5
    images: int = 50_000
    pause: float = 0.0

    @property
    def steps(self) -> int:
        """Of the whole run: the last turn ends when one more step begins."""
        return self.warmup + self.repeats * 2 * self.stretch + 1


QUICK = Size(batch=8, stretch=1, repeats=2, warmup=1, images=64)


def size(quick: bool) -> Size:
    """How much to measure, quickly or properly."""
    return QUICK if quick else Size()


class Turns:
    """Lets a rival have its turn after every stretch of a run's steps.

    A stretch lasts from one call to another, so it holds all that the trainer does in its steps:
    fetching, callbacks, loops.

    Args:
        size: How much to measure.
        prepare: Makes the rival, after the warm-up.
        clock: Tells the time in seconds.
    """

    def __init__(self, size: Size, prepare: Prepare, clock: Clock = perf_counter) -> None:
        self.size = size
        self.prepare = prepare
        self.clock = clock
        self.pairs = Pairs()
        self.rival: Work = lambda: None
        self._calls = -1
        self._started = 0.0

    def at_batch_start(self, trainer: Any, module: Any) -> None:
        """To be called at the start of every step."""
        self._calls += 1
        measured = self._calls - self.size.warmup
        turn, step = divmod(measured, 2 * self.size.stretch)
        if measured == 0:
            self.rival = self.prepare(trainer, module)
        elif turn > 0 and step == 0:
            self.pairs.ours.append(self.clock() - self._started)
            self.rival()
            self.pairs.rival.append(seconds(self.rival, self.clock))
            time.sleep(self.size.pause)
        elif step == self.size.stretch:
            self._started = self.clock()


def turns_with(prepare: Prepare, size: Size, **options: Any) -> Pairs:
    """Seconds of a stretch of a dense run's steps, in turns with a rival.

    Args:
        prepare: Makes the rival.
        size: How much to measure.
        options: More options of the run, as in `fit`.
    """
    turns = Turns(size, prepare)
    original = Recorder.on_train_batch_start

    def on_train_batch_start(recorder: Recorder, trainer: Trainer, module: Any, *rest: Any) -> None:
        turns.at_batch_start(trainer, module)
        original(recorder, trainer, module, *rest)

    with (
        TemporaryDirectory() as folder,
        patch.object(Recorder, "on_train_batch_start", on_train_batch_start),
    ):
        torch.manual_seed(0)
        write_images(Path(folder), train=size.images)
        fit(
            Path(folder),
            data__batch_size=size.batch,
            pruning__schedule__init_args__steps=size.steps,
            **options,
        )
    return turns.pairs
