"""A training step of a run, with all that a run does beside it, against the plain loop."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import torch
from lightning.pytorch import Trainer

from benchmarks.machine import best_product, peak, step_operations
from benchmarks.measure import Row, faster
from benchmarks.plain_loop import prepare, turn
from benchmarks.trainer_turns import Work, size, turns_with
from granprune.classifier import Classifier, cpu_has_bfloat16
from granprune.errors import UserError


def float32(quick: bool) -> list[Row]:
    """Ours in float32."""
    rate = peak(quick)
    unit = f"{rate / 1e9:.0f} GFLOP/s, the peak"
    return [_row("step-float32", quick, "32-true", rate, unit, at_least=1.8)]


def bfloat16(quick: bool) -> list[Row]:
    """Ours in bfloat16 where autocasting allows it; the plain loop stays in float32.

    Raises:
        UserError: This CPU would only emulate it, which takes hours and says nothing.
    """
    if not quick and not cpu_has_bfloat16():
        raise UserError("this CPU has no bfloat16 instructions, so there is nothing to measure")
    rate = best_product(torch.bfloat16, quick)
    unit = f"{rate / 1e9:.0f} GFLOP/s, the best bfloat16 matrix product"
    return [_row("step-bfloat16", quick, "bf16-mixed", rate, unit, at_least=2.8)]


def _row(name: str, quick: bool, precision: str, rate: float, unit: str, at_least: float) -> Row:
    # In the stretch that does not count the rival uses up the four batches that its workers have in store;
    # in the pause they make new ones, since in our turn they would take the cores away.
    wanted = size(quick) if quick else replace(size(quick), pause=0.5)
    # A process of its own: ours has settings of the memory allocator that a plain loop would not have.
    with ProcessPoolExecutor(
        1, get_context("spawn"), torch.set_num_threads, (torch.get_num_threads(),)
    ) as own:

        def plain_loop(trainer: Trainer, module: Classifier) -> Work:
            train = trainer.train_dataloader.split  # type: ignore[union-attr]
            # Arrays, not tensors: those the executor's thread would copy with OpenMP's threads, which
            # then are more than there are cores and, for good, go to sleep where they would wait awake.
            images, labels = train.images.numpy(), train.labels.numpy()
            own.submit(prepare, images, labels, wanted.batch, wanted.stretch).result()
            return lambda: own.submit(turn).result()

        stretches = turns_with(plain_loop, wanted, trainer__precision=precision)
    pairs = stretches.scaled(1000 / wanted.stretch, 1000 / wanted.stretch)
    operations = step_operations(wanted.batch)
    note = f"floor: 3 x forward = {operations / 1e9:.1f} GFLOP at {unit}"
    return faster(name, "ms a step", pairs, at_least, 1000 * operations / rate, note)
