"""Components that are parts of a weight tensor."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from granprune.granularity.base import Granularity, Mask
from granprune.models.base import PrunableLayer


class OnWeight(Granularity):
    """Components are parts of a layer's weight; masks sit on it as a parametrization."""

    on_weight = True

    def expand(self, mask: Tensor, shape: torch.Size) -> Tensor:
        """The mask of every single weight.

        Args:
            mask: One entry a component.
            shape: The weight's shape.

        Returns:
            A tensor of that shape, a view where possible.
        """
        return mask.expand(shape)

    def attach(self, network: nn.Module, layer: PrunableLayer) -> Mask:
        module: Any = network.get_submodule(layer.name)
        mask = Mask(self.total(module.weight.detach()).shape, self.expand)
        parametrize.register_parametrization(module, "weight", mask)
        return mask

    def detach(self, network: nn.Module, layer: PrunableLayer) -> None:
        # Not `remove_parametrizations`: deep copies share their class, and it would take the property
        # `weight` off that class, so from the original too.
        module: Any = network.get_submodule(layer.name)
        raw = module.parametrizations.weight.original
        module.__class__ = type(module).__bases__[0]
        del module.parametrizations
        module.weight = raw

    def find(self, network: nn.Module, layer: PrunableLayer) -> Mask:
        module: Any = network.get_submodule(layer.name)
        return module.parametrizations.weight[0]


class Weights(OnWeight):
    """Single weights of convolutions and linear layers."""

    def total(self, values: Tensor) -> Tensor:
        return values

    def applies(self, module: nn.Module, layer: PrunableLayer) -> bool:
        return isinstance(module, nn.Conv2d | nn.Linear)


class Kernels(OnWeight):
    """2-D kernels: all weights between one input and one output channel of a convolution."""

    def total(self, values: Tensor) -> Tensor:  # (*, out, in, kh, kw) -> (*, out, in, 1, 1)
        return values.sum((-2, -1), keepdim=True)

    def applies(self, module: nn.Module, layer: PrunableLayer) -> bool:
        return isinstance(module, nn.Conv2d)
