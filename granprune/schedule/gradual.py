"""Pruning a little every few steps while training goes on."""

from jsonargparse.typing import NonNegativeInt, PositiveInt

from granprune.errors import UserError
from granprune.schedule.single import Never


class Gradual(Never):
    """Prune every few steps of one training, fast at first and slower later (Zhu & Gupta, 2017).

    With n = `rounds`, sparsity after pruning k is s_k = s_n (1 - (1 - k/n)^3), s_n the final one.
    Nothing is rewound.

    Args:
        rounds: How many times the network is pruned.
        every: Optimizer steps between two prunings.
        start: The step that this begins from; the first pruning follows `every` steps later.
        steps: Optimizer steps of the run.

    Raises:
        UserError: The last pruning would come after the run.
    """

    def __init__(
        self,
        rounds: PositiveInt = 20,
        every: PositiveInt = 1000,
        start: NonNegativeInt = 0,
        steps: PositiveInt = 30_000,
    ) -> None:
        super().__init__(steps)
        if start + rounds * every >= steps:
            raise UserError(
                f"pruning.schedule prunes last at step {start + rounds * every} (start + rounds * every), "
                f"which must be less than pruning.schedule.steps, {steps}"
            )
        self.rounds = rounds
        self.every = every
        self.start = start

    def round_at(self, step: int) -> int:
        return min(max(0, step - self.start) // self.every, self.rounds)

    def density(self, round: int, final: float) -> float:
        left = 1 - round / self.rounds
        return final + (1 - final) * left**3
