"""What one mask entry controls: a weight, a block of weights, a kernel, a channel or a node.

A granularity is two things: a sum over each component of a weight tensor, and a place to attach the
mask. The mask's shape is the shape of that sum.
"""

from granprune.granularity.base import Granularity, Mask
from granprune.granularity.blocks import Blocks
from granprune.granularity.on_unit import Channels, Nodes, OnUnit
from granprune.granularity.on_weight import Kernels, OnWeight, Weights

GRANULARITIES: tuple[type[Granularity], ...] = (Weights, Kernels, Channels, Nodes, Blocks)

__all__ = [
    "GRANULARITIES",
    "Blocks",
    "Channels",
    "Granularity",
    "Kernels",
    "Mask",
    "Nodes",
    "OnUnit",
    "OnWeight",
    "Weights",
]
