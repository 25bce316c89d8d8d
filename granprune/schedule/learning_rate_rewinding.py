"""Rounds that go on from the trained weights, at the learning rate of an earlier step."""

from jsonargparse.typing import NonNegativeInt, PositiveInt

from granprune.schedule.iterative import Iterative


class LearningRateRewinding(Iterative):
    """Train, then prune and train on at the learning rates of before (Renda et al., 2020).

    As `Iterative`, but only the learning rate returns; weights, statistics and optimizer state
    stay as training left them.

    Args:
        rounds: How many times the network is pruned; it is trained `rounds` + 1 times.
        steps: Optimizer steps of one training.
        rewind_step: The step whose learning rate each later round starts from; rounds after the
            first are `steps` - `rewind_step` long.
    """

    def __init__(
        self, rounds: PositiveInt = 5, steps: PositiveInt = 30_000, rewind_step: NonNegativeInt = 0
    ) -> None:
        super().__init__(rounds, steps, rewind_step)
        self.rewind_step = None  # no state to return to
