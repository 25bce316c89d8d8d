"""What one mask entry controls: a weight, a kernel, a channel, a node.

A granularity is a sum over each component of a weight tensor; the mask has the shape of that sum.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from granprune.models.base import PrunableLayer


class Granularity(ABC):
    """What one mask entry removes."""

    on_weight: bool
    """Whether masks multiply weights (True) or activations (False)."""
    modules: tuple[type[nn.Module], ...]
    """The layers that have such components."""

    @abstractmethod
    def total(self, values: Tensor) -> Tensor:
        """Sum over each component.

        Args:
            values: (*weight.shape) numbers, one a weight, or (B, *weight.shape).

        Returns:
            (*mask.shape) sums, one a component, or (B, *mask.shape).
        """

    def mean(self, weight: Tensor) -> Tensor:
        """Average over each component; the result has the mask's shape."""
        return self.total(weight) / self.total(torch.ones_like(weight))

    def applies(self, module: nn.Module, layer: PrunableLayer) -> bool:
        """Whether the layer has components of this kind."""
        return isinstance(module, self.modules) and (self.on_weight or layer.gate is not None)


class OnWeight(Granularity):
    """Components are parts of a layer's weight."""

    on_weight = True

    def expand(self, mask: Tensor, shape: torch.Size) -> Tensor:
        """The mask of every single weight of a tensor of that shape; a view where possible."""
        return mask.expand(shape)


class OnUnit(Granularity):
    """Components are a layer's outputs, masked where the layer's gate is."""

    on_weight = False


class Weights(OnWeight):
    """Single weights of convolutions and linear layers."""

    modules = (nn.Conv2d, nn.Linear)

    def total(self, values: Tensor) -> Tensor:
        return values


class Kernels(OnWeight):
    """2-D kernels: all weights between one input and one output channel of a convolution."""

    modules = (nn.Conv2d,)

    def total(self, values: Tensor) -> Tensor:  # (*, out, in, kh, kw) -> (*, out, in, 1, 1)
        return values.sum((-2, -1), keepdim=True)


class Channels(OnUnit):
    """Output channels of convolutions, masked where the layer's gate is."""

    modules = (nn.Conv2d,)

    def total(self, values: Tensor) -> Tensor:  # (*, out, in, kh, kw) -> (*, out, 1, 1)
        return values.sum((-3, -2, -1))[..., None, None]


class Nodes(OnUnit):
    """Output nodes of linear layers, masked where the layer's gate is."""

    modules = (nn.Linear,)

    def total(self, values: Tensor) -> Tensor:  # (*, out, in) -> (*, out)
        return values.sum(-1)
