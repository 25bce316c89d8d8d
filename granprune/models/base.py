"""What a network must say about itself to be pruned."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class PrunableLayer:
    """A convolution or linear layer that can be pruned, described by submodule names.

    Args:
        name: The layer. Its `weight` carries weight and kernel masks, as in `"blocks.3.conv2"`.
        gate: The module whose output a channel or node mask multiplies; None if its units always stay.
        activation: The module whose output data-driven criteria observe; None if there is none.
        role: What `ByRole` groups on: stem, inner, outer, shortcut, hidden or head.
        norm: The batch normalisation right after the layer; None if there is none.
    """

    name: str
    gate: str | None = None
    activation: str | None = None
    role: str = "hidden"
    norm: str | None = None


class Prunable(nn.Module, ABC):
    """A plain network with one extra method. It knows nothing of masks."""

    @abstractmethod
    def prunable_layers(self) -> list[PrunableLayer]:
        """Name the layers that may be pruned, in forward order."""
