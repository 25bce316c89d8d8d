"""What a granularity is, and the mask that it attaches."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from granprune.models.base import PrunableLayer


class Mask(nn.Module):
    """Multiplies its input by a boolean buffer that training never changes.

    `soft` replaces the buffer while a criterion differentiates with respect to the mask.

    Args:
        shape: The mask's shape.
        expand: Turns a mask into one that multiplies an input of the given shape; None: it
            broadcasts.
    """

    mask: Tensor

    def __init__(
        self, shape: torch.Size, expand: Callable[[Tensor, torch.Size], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(shape, dtype=torch.bool))
        self.soft: Tensor | None = None
        self.expand = expand

    def forward(self, x: Tensor) -> Tensor:
        mask = self.mask if self.soft is None else self.soft
        return x * (mask if self.expand is None else self.expand(mask, x.shape))


class Granularity(ABC):
    """What one mask entry removes."""

    on_weight: bool
    """Whether masks multiply weights (True) or activations (False)."""

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

    @abstractmethod
    def applies(self, module: nn.Module, layer: PrunableLayer) -> bool:
        """Whether the layer has components of this kind."""

    @abstractmethod
    def attach(self, network: nn.Module, layer: PrunableLayer) -> Mask:
        """Put an all-ones mask on the layer and return it."""

    @abstractmethod
    def detach(self, network: nn.Module, layer: PrunableLayer) -> None:
        """Take the mask off again; the raw weight stays."""

    @abstractmethod
    def find(self, network: nn.Module, layer: PrunableLayer) -> Mask:
        """The mask that `attach` put on the layer."""
