"""A training step of a run, with all that a run does beside it, against the plain loop."""

import torch
from lightning.pytorch import Trainer

from benchmarks.machine import best_product, step_operations
from benchmarks.measure import Row, faster
from benchmarks.plain_loop import PlainLoop
from benchmarks.trainer_turns import size, turns_with
from granprune.classifier import Classifier


def float32(quick: bool) -> list[Row]:
    """Ours in float32."""
    return [_row("step-float32", quick, "32-true", torch.float32, at_least=1.8)]


def bfloat16(quick: bool) -> list[Row]:
    """Ours in bfloat16 where autocasting allows it; the plain loop stays in float32."""
    return [_row("step-bfloat16", quick, "bf16-mixed", torch.bfloat16, at_least=2.8)]


def _row(name: str, quick: bool, precision: str, dtype: torch.dtype, at_least: float) -> Row:
    wanted = size(quick)

    def plain_loop(trainer: Trainer, module: Classifier) -> PlainLoop:
        train = trainer.train_dataloader.split  # type: ignore[union-attr]
        return PlainLoop(train.images, train.labels, wanted.batch, wanted.stretch)

    stretches = turns_with(plain_loop, wanted, trainer__precision=precision)
    pairs = stretches.scaled(1000 / wanted.stretch, 1000 / wanted.stretch)
    operations = step_operations(wanted.batch)
    _, rate = best_product(dtype, quick)
    floor = 1000 * operations / rate
    note = (
        f"floor: 3 x forward = {operations / 1e9:.1f} GFLOP at {rate / 1e9:.0f} GFLOP/s, the best "
        f"{str(dtype).removeprefix('torch.')} matrix product"
    )
    return faster(name, "ms a step", pairs, at_least, floor, note)
