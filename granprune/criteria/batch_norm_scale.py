"""Scale factors of batch normalisation (network slimming: Liu et al., 2017)."""

import torch

from granprune.criteria.base import Batches, Criterion, Scores
from granprune.errors import UserError
from granprune.granularity import Channels
from granprune.masking import MaskedModel


class BatchNormScale(Criterion):
    """|gamma| of the batch normalisation that follows a convolution, for each channel.

    Liu et al. (2017) also train with an L1 penalty on gamma; here the loss is what it is. At
    initialization all gammas are 1, so prune after some training.
    """

    def __call__(self, model: MaskedModel, batches: Batches, generator: torch.Generator) -> Scores:
        parameters = dict(model.network.named_parameters())
        return {
            name: parameters[f"{layer.norm}.weight"].detach().abs().view_as(model.masks[name])
            for name, layer in model.layers.items()
        }

    def check(self, model: MaskedModel) -> None:
        if not isinstance(model.granularity, Channels):
            raise self.refuse(model, "Channels")
        for name, layer in model.layers.items():
            if layer.norm is None:
                raise UserError(f"criterion BatchNormScale: no batch normalisation follows layer {name}")
