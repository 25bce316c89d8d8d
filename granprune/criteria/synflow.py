"""SynFlow: keep what much of the signal passes through (Tanaka et al., 2020)."""

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor
from torch.func import functional_call

from granprune.criteria.base import Batches, Criterion, Scores
from granprune.masking import MaskedModel

SIGNAL = 1e-100  # so small that tanh is linear and ReLU6 never full; float64 has room for 200 digits more


class SynFlow(Criterion):
    """m dR/dm, with R = 1^T |W_L| ... |W_1| 1 the flow through the network of absolute weights.

    No image is used, only its shape. Biases and running means are zero and batch normalisation only
    scales, so that R is a sum over paths, as in Tanaka et al. (2020). One pruning is `passes` rounds
    of scoring and pruning, at densities that fall exponentially; a single round can cut through a
    whole layer, a hundred hardly can.

    Args:
        passes: Rounds of scoring and pruning within one pruning.
    """

    def __init__(self, passes: PositiveInt = 100) -> None:
        self.passes = passes

    def __call__(self, model: MaskedModel, batches: Batches, generator: torch.Generator) -> Scores:
        images, _ = next(iter(batches))
        signal = torch.full((1, *images.shape[1:]), SIGNAL, dtype=torch.float64, device=images.device)
        state = {
            key: _magnitude(key, value.detach())
            for key, value in model.state_dict().items()
            if value.is_floating_point()
        }
        with torch.enable_grad(), model.soft_masks(dtype=torch.float64) as soft:
            flow = functional_call(model, state, (signal,)).sum() / SIGNAL
            gradients = torch.autograd.grad(flow, list(soft.values()))
        masks = model.masks
        return {name: masks[name] * g for name, g in zip(soft, gradients, strict=True)}


def _magnitude(key: str, value: Tensor) -> Tensor:
    """A parameter or buffer of the network of absolute weights."""
    shifts = key.endswith(("bias", "running_mean"))
    return torch.zeros_like(value, dtype=torch.float64) if shifts else value.double().abs()
