"""Several trainings, each from the same start and sparser than the one before."""

from jsonargparse.typing import NonNegativeInt, PositiveInt

from granprune.errors import UserError
from granprune.schedule.base import Schedule


class Iterative(Schedule):
    """Train, then prune, rewind and train again, `rounds` times (lottery-ticket style).

    Args:
        rounds: How many times the network is pruned; it is trained `rounds` + 1 times.
        steps: Optimizer steps of one training.
        rewind_step: The step whose weights, statistics, optimizer state and learning rate each
            later round starts from; 0 is the initialization, and rounds after the first are
            `steps` - `rewind_step` long.
    """

    def __init__(
        self, rounds: PositiveInt = 5, steps: PositiveInt = 30_000, rewind_step: NonNegativeInt = 0
    ) -> None:
        if rewind_step >= steps:
            raise UserError(
                f"pruning.schedule.rewind_step is {rewind_step}: it must be less than "
                f"pruning.schedule.steps, which is {steps}"
            )
        self.rounds = rounds
        self.steps = steps
        self.rewind_step: int | None = rewind_step
        self.start = rewind_step  # the position that later rounds start from

    @property
    def total_steps(self) -> int:
        return self.steps + self.rounds * (self.steps - self.start)

    def round_at(self, step: int) -> int:
        if step < self.steps:
            return 0
        return min(1 + (step - self.steps) // (self.steps - self.start), self.rounds)

    def position(self, step: int) -> int:
        if step < self.steps:
            return step
        return self.start + (step - self.steps) % (self.steps - self.start)
