"""Movement: keep what training moves away from zero (Sanh et al., 2020)."""

from typing import Any

import torch

from granprune.criteria.base import Batches, Criterion, Scores
from granprune.errors import UserError
from granprune.masking import MaskedModel


class MovementSum(Criterion):
    """-sum over training steps and over the component's weights of w dL/dw (Sanh et al., 2020).

    Positive where gradient descent makes weights larger. The sum begins anew when training is
    rewound. Nodes are scored by their incoming weights. A whole filter in front of batch
    normalisation has no score: its output does not depend on its length, so the sum is zero.
    """

    def __init__(self) -> None:
        self.sums: Scores = {}

    def __call__(self, model: MaskedModel, batches: Batches, generator: torch.Generator) -> Scores:
        if not self.sums:
            raise UserError(
                "criterion MovementSum has seen no training: prune after some, with schedule Iterative, "
                "Gradual, FineTune or LearningRateRewinding"
            )
        return {name: self.sums[name].to(mask.device) for name, mask in model.masks.items()}

    @torch.no_grad()
    def observe(self, model: MaskedModel) -> None:
        for name, weight in model.weights().items():
            gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
            moved = model.granularity.total(-weight * gradient)
            self.sums[name] = moved + self.sums[name].to(moved.device) if name in self.sums else moved

    def forget(self) -> None:
        self.sums = {}

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums = state["sums"]

    def check(self, model: MaskedModel) -> None:
        for name, layer in model.layers.items():
            if layer.norm is not None and model.masks[name].numel() <= len(model.weights()[name]):
                raise UserError(
                    f"criterion MovementSum cannot score whole filters, as of layer {name}: before batch "
                    "normalisation they do not move; it scores Weights, Kernels and smaller Blocks"
                )
