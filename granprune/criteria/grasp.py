"""GraSP: keep what gradient flow lives on (Wang et al., 2020)."""

import torch
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from granprune.criteria.base import Batches, Criterion, Scores, first_samples
from granprune.criteria.weight_gradients import weight_gradients
from granprune.masking import MaskedModel


class GraSP(Criterion):
    """w (H g), summed over the component: how much gradient flow is lost without it.

    g is the gradient of the mean loss in the masked layers' weights and H its Hessian, at a softmax
    of high temperature. Wang et al. (2020) remove the weights with the highest -w (H g), so
    those with the lowest w (H g) here. For channels and nodes the score is the derivative of the
    flow |g|^2 / 2 with respect to the mask, which w (H g) is for weights at constant g.

    Args:
        temperature: Divisor of the logits.
        num_samples: How many augmented training images are used, twice.
    """

    def __init__(self, temperature: PositiveFloat = 200.0, num_samples: PositiveInt = 2000) -> None:
        self.temperature = temperature
        self.num_samples = num_samples

    def __call__(self, model: MaskedModel, batches: Batches, generator: torch.Generator) -> Scores:
        data = list(first_samples(batches, self.num_samples))
        samples = sum(len(labels) for _, labels in data)
        flow = weight_gradients(model, data, self.temperature)
        sums: Scores = {}
        for images, labels in data:
            for name, product in self._products(model, images, labels, flow).items():
                sums[name] = sums.get(name, 0) + product / samples
        if not model.granularity.on_weight:
            return sums
        weights = model.weights()
        return {n: model.granularity.total(weights[n].detach() * product) for n, product in sums.items()}

    def _products(
        self, model: MaskedModel, images: Tensor, labels: Tensor, flow: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Second derivatives of the batch's summed loss times the flow: in weights, or in units' masks."""
        weights = model.weights()
        with torch.enable_grad(), model.soft_masks() as soft:
            loss = F.cross_entropy(model(images) / self.temperature, labels, reduction="sum")
            gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            along = torch.stack(
                [(g * flow[name]).sum() for name, g in zip(weights, gradients, strict=True)]
            ).sum()
            variables = weights if model.granularity.on_weight else soft
            products = torch.autograd.grad(along, list(variables.values()), materialize_grads=True)
        return dict(zip(variables, products, strict=True))
