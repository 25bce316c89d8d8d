"""The deep, big, simple network for MNIST (Ciresan et al., 2010): a plain tanh MLP."""

from collections.abc import Sequence

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from granprune.models.base import Prunable, PrunableLayer


class ScaledTanh(nn.Module):
    """1.7159 tanh(0.6666 x), LeCun's scaling."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(0.6666 * x)


class DBSN(Prunable):
    """A tanh MLP, 784-2500-2000-1500-1000-500-10 unless told otherwise.

    Every weight matrix is prunable, the classifier's included; nodes are prunable in the hidden
    layers, where their mask multiplies the pre-activation. Weights start uniform in [-0.05, 0.05]
    and biases at 0, as in Heyman & Zylberberg (2024).

    Args:
        num_classes: Outputs; the command line takes it from the data set.
        widths: Nodes of each hidden layer, first to last.
        in_features: Pixels of one image (784 for MNIST, 64 for Digits).
    """

    def __init__(
        self,
        num_classes: int = 10,
        widths: Sequence[PositiveInt] = (2500, 2000, 1500, 1000, 500),
        in_features: PositiveInt = 784,
    ) -> None:
        super().__init__()
        sizes = [in_features, *widths]
        self.hidden = nn.ModuleList(nn.Linear(i, o) for i, o in zip(sizes, sizes[1:], strict=False))
        self.act = nn.ModuleList(ScaledTanh() for _ in widths)
        self.head = nn.Linear(sizes[-1], num_classes)
        for linear in [*self.hidden, self.head]:
            nn.init.uniform_(linear.weight, -0.05, 0.05)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, ...) -> (B, num_classes)
        x = x.flatten(1)
        for linear, act in zip(self.hidden, self.act, strict=True):
            x = act(linear(x))
        return self.head(x)

    def prunable_layers(self) -> list[PrunableLayer]:
        """All matrices; a hidden layer is gated before its tanh and observed after it."""
        hidden = [
            PrunableLayer(f"hidden.{i}", gate=f"hidden.{i}", activation=f"act.{i}")
            for i in range(len(self.hidden))
        ]
        return [*hidden, PrunableLayer("head", role="head")]
