"""What a schedule is."""

from abc import ABC, abstractmethod

from granprune.errors import UserError
from granprune.learning_rate import LearningRate


class Schedule(ABC):
    """When to prune, how far, and where each round starts from.

    Attributes:
        rounds: How many times the network is pruned.
        steps: Length of a full round, in optimizer steps.
        rewind_step: The step whose state every later round starts from; None: training goes on.
    """

    rounds: int = 0
    steps: int
    rewind_step: int | None = None

    @property
    @abstractmethod
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""

    def check(self, density: float) -> None:
        """Refuse a final density that the schedule cannot reach.

        Raises:
            UserError: It never prunes.
        """
        if density != 1 and not self.rounds:
            raise UserError(
                f"pruning.density is {density}, but schedule {type(self).__name__} never prunes: choose "
                "another pruning.schedule, such as Iterative, or leave pruning.density out"
            )

    def check_steps(self, max_steps: int) -> None:
        """Refuse another length of the run.

        Raises:
            UserError: It is not `total_steps`.
        """
        if max_steps != self.total_steps:
            raise UserError(
                f"trainer.max_steps is {max_steps}, but the schedule takes {self.total_steps} steps; "
                "leave trainer.max_steps to the schedule"
            )

    @abstractmethod
    def round_at(self, step: int) -> int:
        """How many prunings have happened when `step` (counted from 0) is about to run."""

    @abstractmethod
    def position(self, step: int) -> int:
        """The step within the round: what the learning rate depends on."""

    def learning_rate(self, in_round: LearningRate) -> LearningRate:
        """How the rate moves in this schedule, given how it moves in a round."""
        return in_round

    def density(self, round: int, final: float) -> float:
        """The density after pruning number `round` (counted from 1) on the way to `final`.

        Geometric, as in Heyman & Zylberberg (2024): each round keeps the same fraction of what is
        left. A running product, since powers round differently and half components decide counts.
        """
        target = 1.0
        for _ in range(round):
            target *= final ** (1 / self.rounds)
        return target

    def ends_round(self, step: int) -> bool:
        """Whether a round, or the run, is complete after `step` steps."""
        return step == self.total_steps or (step > 0 and self.round_at(step) > self.round_at(step - 1))
