"""What one mask entry controls: a weight, a block of weights, a kernel, a channel or a node."""

from granprune.granularity.base import Channels, Granularity, Kernels, Nodes, OnUnit, OnWeight, Weights
from granprune.granularity.blocks import Blocks

GRANULARITIES: tuple[type[Granularity], ...] = (Weights, Kernels, Channels, Nodes, Blocks)

__all__ = [
    "GRANULARITIES",
    "Blocks",
    "Channels",
    "Granularity",
    "Kernels",
    "Nodes",
    "OnUnit",
    "OnWeight",
    "Weights",
]
