"""Pruning a trained network and training it a little longer."""

from jsonargparse.typing import NonNegativeFloat, PositiveInt

from granprune.learning_rate import LearningRate, ThenConstant
from granprune.schedule.single import Never


class FineTune(Never):
    """Train, prune once, and go on from the trained weights (Han et al., 2015).

    Args:
        steps: Optimizer steps of the training before the pruning.
        more_steps: Optimizer steps after it.
        rate: Factor on the optimizer's learning rate after it; before, `model.learning_rate` rules.
    """

    rounds = 1

    def __init__(
        self,
        steps: PositiveInt = 30_000,
        more_steps: PositiveInt = 10_000,
        rate: NonNegativeFloat = 0.01,
    ) -> None:
        super().__init__(steps)
        self.more_steps = more_steps
        self.rate = rate

    @property
    def total_steps(self) -> int:
        return self.steps + self.more_steps

    def round_at(self, step: int) -> int:
        return int(step >= self.steps)

    def learning_rate(self, in_round: LearningRate) -> LearningRate:
        return ThenConstant(in_round, self.rate)
