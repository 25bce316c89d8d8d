"""The opposite of a criterion: a control that prunes the best components first."""

from typing import Any

import torch

from granprune.criteria.base import Batches, Criterion, Scores
from granprune.masking import MaskedModel


class Inverted(Criterion):
    """Negated scores of another criterion (the paper's controls).

    Args:
        criterion: The criterion to turn round.
    """

    def __init__(self, criterion: Criterion) -> None:
        self.criterion = criterion

    def __call__(self, model: MaskedModel, batches: Batches, generator: torch.Generator) -> Scores:
        scores = self.criterion(model, batches, generator)
        return {name: -score for name, score in scores.items()}

    @property
    def passes(self) -> int:  # type: ignore[override]
        """As many as the criterion's."""
        return self.criterion.passes

    def check(self, model: MaskedModel) -> None:
        self.criterion.check(model)

    def observe(self, model: MaskedModel) -> None:
        self.criterion.observe(model)

    def forget(self) -> None:
        self.criterion.forget()

    def state_dict(self) -> dict[str, Any]:
        return self.criterion.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.criterion.load_state_dict(state)
