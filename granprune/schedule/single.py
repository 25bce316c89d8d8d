"""One training, dense or pruned before it starts."""

from jsonargparse.typing import PositiveInt

from granprune.schedule.base import Schedule


class Never(Schedule):
    """Train the dense network.

    Args:
        steps: Optimizer steps of the run.
    """

    def __init__(self, steps: PositiveInt = 30_000) -> None:
        self.steps = steps

    @property
    def total_steps(self) -> int:
        return self.steps

    def round_at(self, step: int) -> int:
        return 0

    def position(self, step: int) -> int:
        return step


class AtInit(Never):
    """Prune once, at initialization, then train.

    Args:
        steps: Optimizer steps of the run.
    """

    rounds = 1

    def round_at(self, step: int) -> int:
        return 1
