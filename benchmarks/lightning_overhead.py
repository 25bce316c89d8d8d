"""What Lightning, callbacks, masks and logging add to a bare loop of the same step."""

import os
import statistics
from unittest.mock import patch

import torch
from lightning.pytorch import Trainer
from torch.nn import functional as F

from benchmarks.machine import bytes_per_second
from benchmarks.measure import Row, share
from benchmarks.trainer_turns import size, turns_with
from granprune.classifier import Classifier
from granprune.models import ResNet20


class BareLoop:
    """The same step without Lightning, masks or records: network, loader and optimizer alone.

    Args:
        trainer: Whose data and optimizer settings to take.
        steps: Steps of one turn.
    """

    def __init__(self, trainer: Trainer, steps: int) -> None:
        # A network of its own: that of the run has masks, which are part of what is measured.
        self.network = ResNet20().to(memory_format=torch.channels_last)
        theirs = trainer.optimizers[0]
        self.optimizer = type(theirs)(self.network.parameters(), **theirs.defaults)
        self.loader = trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]
        self.steps = steps

    def __call__(self) -> None:
        """One turn."""
        for _ in range(self.steps):
            images, labels = self._batch()
            self.optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(self.network(images), labels).backward()
            self.optimizer.step()

    def _batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        try:
            return next(self.loader)
        except StopIteration:
            return next(iter(self.loader))


def lightning_overhead(quick: bool) -> list[Row]:
    """A run's steps, tracked offline in W&B, over the bare loop's."""
    wanted, seen = size(quick), {}

    def bare_loop(trainer: Trainer, module: Classifier) -> BareLoop:
        seen["bytes"] = sum(4 * weight.numel() for weight in module.network.weights().values())
        return BareLoop(trainer, wanted.stretch)

    with patch.dict(os.environ, WANDB_MODE="offline"):
        stretches = turns_with(bare_loop, wanted, wandb__enabled="true")
    pairs = stretches.scaled(1000 / wanted.stretch, 1000 / wanted.stretch)
    bare, masking = statistics.median(pairs.rival), 1000 * 6 * seen["bytes"] / bytes_per_second(quick)
    note = (
        f"floor: the bare step and {masking:.3f} ms to read and write {seen['bytes'] / 2**20:.2f} MiB of "
        f"weights three times for masks"
    )
    return [share("lightning-overhead", "ms a step", pairs, 1.03, "at most", bare + masking, note)]
