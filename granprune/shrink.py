"""Train a network through its kept channels and nodes alone: less work, the same gradients.

What a pruned unit computes is multiplied by zero, so neither it nor a weight that reads it gets a
gradient. A smaller network that reads the kept part of the very same parameters gives every parameter
the gradient it has under masks. Optimizer, decay of pruned weights, checkpoints, ranks and rewinding see
the whole network, as if nothing were different. Only the running statistics of pruned channels,
which nothing reads, stand still.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from granprune.deploy.compact import Norm, assemble
from granprune.deploy.layers import ModelParts, layers_of
from granprune.deploy.packed import Packed
from granprune.granularity import OnUnit
from granprune.masking import MaskedModel
from granprune.models import DBSN, ResNet20


class Shrunk(nn.Module):
    """The kept part of a ResNet20 or DBSN that is masked by channels or nodes, for training.

    Args:
        model: Where parameters and batch statistics are and stay; a later change of its masks is not seen.
    """

    def __init__(self, model: MaskedModel) -> None:
        super().__init__()
        self.network = assemble(model, layers_of(_Structure(model)), Views())
        self.to(next(model.parameters()).device)  # the indices; all else is there
        used = {id(parameter) for parameter in self.network.parameters()}
        self.unused = [p for p in model.parameters() if id(p) not in used]

    def forward(self, x: Tensor) -> Tensor:
        y = self.network(x)
        # A gradient of zero, not none: weight decay and momentum go on, and ranks wait for all.
        for parameter in self.unused:
            y = y + parameter.flatten()[:0].sum()
        return y


def can_shrink(model: MaskedModel) -> bool:
    """Whether the network's structure is known. Unpruned it gains, too: nothing is multiplied by ones."""
    if not isinstance(model.granularity, OnUnit) or not isinstance(model.network, ResNet20 | DBSN):
        return False
    # Synchronised normalisation would have to exchange the statistics of what is kept.
    return not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())


class Views:
    """Layers that read the kept part of the whole network's parameters in each forward pass."""

    def conv(self, conv: Any, norm: Any, inputs: Tensor, outputs: Tensor) -> tuple[nn.Module, Norm]:
        return ConvView(conv, inputs, outputs), self.norm(norm, outputs)

    def norm(self, norm: Any, outputs: Tensor) -> Norm:
        return norm, outputs if len(outputs) < norm.num_features else None

    def linear(self, linear: Any, inputs: Tensor, outputs: Tensor | None) -> nn.Module:
        return LinearView(linear, inputs, torch.arange(linear.out_features) if outputs is None else outputs)


class _View(nn.Module):
    """Reads rows and columns of a layer's weight."""

    rows: Tensor | None
    columns: Tensor | None

    def __init__(self, layer: Any, inputs: Tensor, outputs: Tensor) -> None:
        super().__init__()
        self.layer = layer
        rows, columns = layer.weight.shape[:2]
        self.register_buffer("rows", outputs if len(outputs) < rows else None, persistent=False)
        self.register_buffer("columns", inputs if len(inputs) < columns else None, persistent=False)

    @property
    def weight(self) -> Tensor:
        return pick(pick(self.layer.weight, self.rows, 0), self.columns, 1)


class ConvView(_View):
    """The kept kernels of a convolution without bias."""

    def forward(self, x: Tensor) -> Tensor:  # (B, inputs, H, W) -> (B, outputs, H / stride, W / stride)
        return self.layer._conv_forward(x, self.weight, None)


class LinearView(_View):
    """The kept rows and columns of a linear layer."""

    def forward(self, x: Tensor) -> Tensor:  # (B, inputs) -> (B, outputs)
        return F.linear(x, self.weight, pick(self.layer.bias, self.rows, 0))


class _Structure(ModelParts):
    """A network of which every weight counts, also one that happens to be zero now."""

    def weight(self, name: str) -> Packed:
        layer: Any = self._model.module(name)
        return Packed.of(np.ones(layer.weight.shape, np.float32))


def pick(values: Tensor, index: Tensor | None, dim: int) -> Tensor:
    """Some slices along a dimension; all of them if there is no index."""
    return values if index is None else values.index_select(dim, index)
