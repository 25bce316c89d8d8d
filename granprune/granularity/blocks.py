"""Rectangular blocks of a weight tensor: granularity as an axis instead of a few names."""

from typing import Literal, TypeAlias

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from granprune.errors import UserError
from granprune.granularity.base import OnWeight

Edge: TypeAlias = PositiveInt | Literal["full"]


class Blocks(OnWeight):
    """Blocks of neighbouring weights: outputs x inputs x height x width.

    1 x 1 x 1 x 1 are single weights, 1 x 1 x full x full kernels, 1 x 1 x 1 x full rows of kernels
    and 1 x full x full x full filters. A block at the end of a dimension that its edge does not
    divide is smaller: `Magnitude` scores it by its mean, and gradients with respect to the mask
    count what it holds.

    Filters are not `Channels`. A filter's block zeroes the weights of one convolution, nothing
    else: batch normalisation still shifts the empty channel, and where the convolution feeds a
    residual stream, what the skip connection brings stays in it. A channel's mask multiplies what
    comes out after the addition and the activation, so it also cuts the stream itself and leaves
    exactly zero. Channels are therefore the coarser component at a residual stream, although both
    count one for each output of a convolution.

    Args:
        outputs: Edge along the layer's outputs, in weights, or `full`.
        inputs: Edge along its inputs (of one group, for a grouped convolution), or `full`.
        height: Edge along a kernel's height, or `full`; linear layers have none.
        width: Edge along a kernel's width, or `full`; linear layers have none.

    Raises:
        UserError: An edge is neither a positive number nor `full`.
    """

    modules = (nn.Conv2d, nn.Linear)

    def __init__(self, outputs: Edge = 1, inputs: Edge = 1, height: Edge = 1, width: Edge = 1) -> None:
        self.edges = {"outputs": outputs, "inputs": inputs, "height": height, "width": width}
        for name, edge in self.edges.items():
            if edge != "full" and not (isinstance(edge, int) and edge > 0):
                raise UserError(f"Blocks.{name} is {edge!r}: give a number of weights from 1, or full")

    def total(self, values: Tensor) -> Tensor:
        first = values.ndim - (4 if values.ndim > 3 else 2)  # a convolution's weight or a linear layer's
        edges = self._edges(values.shape[first:])
        whole = [first + dim for dim, edge in edges.items() if edge == values.shape[first + dim]]
        if whole:
            values = values.sum(whole, keepdim=True)
        for dim, edge in edges.items():
            if first + dim not in whole:
                values = _sum_runs(values, first + dim, edge)
        return values

    def expand(self, mask: Tensor, shape: torch.Size) -> Tensor:
        for dim, edge in self._edges(shape).items():
            if edge < shape[dim]:
                mask = mask.repeat_interleave(edge, dim).narrow(dim, 0, shape[dim])
        return mask.expand(shape)

    def _edges(self, shape: torch.Size) -> dict[int, int]:
        """Dimension -> the block's edge there, for dimensions in which blocks are more than a weight."""
        edges = list(self.edges.values())[: len(shape)]
        sizes = [size if edge == "full" else min(edge, size) for edge, size in zip(edges, shape, strict=True)]
        return {dim: size for dim, size in enumerate(sizes) if size > 1}


def _sum_runs(values: Tensor, dim: int, edge: int) -> Tensor:
    """Sum runs of `edge` neighbours along a dimension; the last run may be shorter."""
    padding = [0, 0] * (values.ndim - 1 - dim) + [0, -values.shape[dim] % edge]
    return F.pad(values, padding).unflatten(dim, (-1, edge)).sum(dim + 1)
