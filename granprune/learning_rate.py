"""How the learning rate moves within a round: a factor on the optimizer's rate, by position."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat

from granprune.errors import UserError


class LearningRate(ABC):
    """A pure function of the position in the round, so that rewinding needs no state."""

    @abstractmethod
    def factor(self, position: int, steps: int) -> float:
        """What the optimizer's learning rate is multiplied with.

        Args:
            position: Step within the round, counted from 0.
            steps: Optimizer steps of a full round.
        """


class Constant(LearningRate):
    """The optimizer's learning rate, unchanged."""

    def factor(self, position: int, steps: int) -> float:
        return 1.0


class WarmupAndDrops(LearningRate):
    """Rise linearly from zero, then drop at the given points of the round.

    The paper's ResNet-20 schedule is `warmup` 2/3 with drops by 0.1 at 20/30 and 25/30 of a round.

    Args:
        warmup: Fraction of the round in which the rate rises from 0 to its full value.
        drops: Fractions of the round, ascending, at which the rate is multiplied by `drop_factor`.
        drop_factor: What each drop multiplies the rate with.
    """

    def __init__(
        self,
        warmup: ClosedUnitInterval = 20 / 30,
        drops: Sequence[ClosedUnitInterval] = (20 / 30, 25 / 30),
        drop_factor: NonNegativeFloat = 0.1,
    ) -> None:
        if list(drops) != sorted(drops):
            raise UserError(f"model.learning_rate.drops is {list(drops)}: the fractions must ascend")
        self.warmup = warmup
        self.drops = drops
        self.drop_factor = drop_factor

    def factor(self, position: int, steps: int) -> float:
        passed = sum(position >= round(drop * steps) for drop in self.drops)
        rising = round(self.warmup * steps)
        return min(1.0, position / rising if rising else 1.0) * self.drop_factor**passed


class ThenConstant(LearningRate):
    """A rate that moves within the round, and one that stays after it.

    Args:
        in_round: How the optimizer's rate moves within the round.
        rate: Factor on the optimizer's rate in steps past the round.
    """

    def __init__(self, in_round: LearningRate, rate: NonNegativeFloat) -> None:
        self.in_round = in_round
        self.rate = rate

    def factor(self, position: int, steps: int) -> float:
        return self.in_round.factor(position, steps) if position < steps else self.rate
