"""The gradient of the mean loss with respect to the raw weights."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from granprune.masking import MaskedModel

Data = Iterable[tuple[Tensor, Tensor]]


def weight_gradients(model: MaskedModel, data: Data, temperature: float = 1.0) -> dict[str, Tensor]:
    """Differentiate the mean cross-entropy over all samples; pruned weights have gradient zero.

    Args:
        model: In evaluation mode, so that batches do not matter.
        data: Images (B, C, H, W) and labels (B,).
        temperature: Divisor of the logits.

    Returns:
        Layer name -> gradient of the raw weight's shape.
    """
    weights = model.weights()
    sums = [torch.zeros_like(weight) for weight in weights.values()]
    samples = 0
    for images, labels in data:
        with torch.enable_grad():
            loss = F.cross_entropy(model(images) / temperature, labels, reduction="sum")
        for total, gradient in zip(sums, torch.autograd.grad(loss, list(weights.values())), strict=True):
            total += gradient
        samples += len(labels)
    return {name: total / samples for name, total in zip(weights, sums, strict=True)}
