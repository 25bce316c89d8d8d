"""How much of a float32 training step goes into fetching and augmenting its batch."""

from lightning.pytorch import Trainer

from benchmarks.machine import bytes_per_second
from benchmarks.measure import Pairs, Row, share
from benchmarks.trainer_turns import Work, size, turns_with
from granprune.classifier import Classifier


def data_share(quick: bool) -> list[Row]:
    """Time of the run's loader for a batch, in turns with, and over, the time of a whole step."""
    wanted = size(quick)

    def fetch(trainer: Trainer, module: Classifier) -> Work:
        loader = trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]

        def batches() -> None:
            for _ in range(wanted.stretch):
                if next(loader, None) is None:
                    next(iter(loader))

        return batches

    stretches = turns_with(fetch, wanted).scaled(1000 / wanted.stretch, 1000 / wanted.stretch)
    pairs = Pairs(ours=stretches.rival, rival=stretches.ours)  # the run's step is what data are a share of
    pixels = wanted.batch * 3 * 32 * 32
    floor = 1000 * 5 * pixels / bytes_per_second(quick)
    note = f"rival: a whole step; floor: {pixels:,} pixels read as bytes and written as float32 once"
    return [share("data-share", "ms a step", pairs, 0.02, "at most", floor, note)]
