"""A network as the engine sees it: a list of convolutions with everything else folded in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from granprune.deploy.packed import Array, Packed
from granprune.errors import UserError
from granprune.granularity import OnUnit
from granprune.masking import MaskedModel
from granprune.models import DBSN, Prunable, ResNet20

IMAGE = -1  # the source of a layer that reads the network's input


@dataclass
class Layer:
    """A convolution, its batch normalisation folded in, then an addition, then an activation.

    A linear layer is a 1x1 convolution. The last layer of a network is its output.

    Args:
        weight: (outputs, inputs, k, k), k = 3 (padding 1) or 1.
        bias: (outputs,).
        source: The layer whose output is read; -1 for the network's input.
        stride: 1 or 2.
        residual: The layer whose output is added before the activation.
        activation: "linear", "relu" or "tanh" (LeCun's scaled one).
        pooled: Whether the source is averaged over its pixels first.
        alive: (outputs,) False where the output is zero because it is pruned, or is never read.
    """

    weight: Packed
    bias: Array
    source: int
    stride: int = 1
    residual: int | None = None
    activation: str = "linear"
    pooled: bool = False
    alive: Array | None = None


class Parts(Protocol):
    """Where a network's numbers come from: a model in memory or a file."""

    @property
    def network(self) -> Prunable:
        """Its structure; its own tensors are not read."""

    @property
    def alive(self) -> Mapping[str, Array]:
        """Layer -> (outputs,) False where a unit is pruned; empty if masks are on weights."""

    def weight(self, name: str) -> Packed:
        """A layer's masked weight."""

    def values(self, key: str) -> Array:
        """Any other tensor of the state, float32."""


class ModelParts:
    """The numbers of a masked model."""

    def __init__(self, model: MaskedModel) -> None:
        self._model = model
        self._state = model.dense_state_dict()

    @property
    def network(self) -> Prunable:
        return self._model.network

    @property
    def alive(self) -> dict[str, Array]:
        # A masked node's tanh(0) and a masked channel are both exactly zero.
        if not isinstance(self._model.granularity, OnUnit):
            return {}
        return {name: mask.flatten().cpu().numpy() for name, mask in self._model.masks.items()}

    def weight(self, name: str) -> Packed:
        layer: Any = self._model.module(name)  # its weight is masked when it is read
        return Packed.of(_numpy(layer.weight))

    def values(self, key: str) -> Array:
        return _numpy(self._state[key])


def layers_of(model: MaskedModel | Parts) -> list[Layer]:
    """The layers of a pruned network, in an order in which they can be computed.

    Raises:
        UserError: The network is neither a ResNet20 nor a DBSN.
    """
    parts = ModelParts(model) if isinstance(model, MaskedModel) else model
    network = parts.network
    if isinstance(network, ResNet20):
        layers = _resnet(network, parts)
    elif isinstance(network, DBSN):
        layers = _dbsn(network, parts)
    else:
        raise UserError(f"cannot deploy {type(network).__name__}: possible are ResNet20 and DBSN")
    return trim(layers)


def trim(layers: list[Layer]) -> list[Layer]:
    """Remove what cannot change the output: weights that read a pruned output, outputs nobody reads."""
    for layer in layers:
        if layer.source != IMAGE:
            layer.weight = layer.weight.of_inputs(_alive(layers[layer.source]))
    for i, layer in reversed(list(enumerate(layers[:-1]))):
        read = np.zeros(len(layer.bias), bool)
        for later in layers[i + 1 :]:
            alive = _alive(later)
            if later.source == i:
                read |= later.weight.kept[alive].any((0, 2, 3))
            if later.residual == i:
                read |= alive
        layer.alive = _alive(layer) & read
    return layers


def _alive(layer: Layer) -> Array:
    return np.ones(len(layer.bias), bool) if layer.alive is None else layer.alive


def _resnet(network: ResNet20, parts: Parts) -> list[Layer]:
    layers = [_conv(parts, "conv", "bn", IMAGE)]
    for i, block in enumerate(network.blocks):
        source = skip = len(layers) - 1
        name = f"blocks.{i}"
        if isinstance(block.shortcut, nn.Sequential):
            shortcut = f"{name}.shortcut"
            layers.append(_conv(parts, f"{shortcut}.0", f"{shortcut}.1", source, activation="linear"))
            skip = len(layers) - 1
        layers.append(_conv(parts, f"{name}.conv1", f"{name}.bn1", source))
        layers.append(_conv(parts, f"{name}.conv2", f"{name}.bn2", len(layers) - 1, skip))
    return [*layers, Layer(parts.weight("head"), parts.values("head.bias"), len(layers) - 1, pooled=True)]


def _conv(
    parts: Parts, name: str, norm: str, source: int, residual: int | None = None, activation: str = "relu"
) -> Layer:
    module: Any = parts.network.get_submodule(name)
    stats: Any = parts.network.get_submodule(norm)
    mean, variance = (parts.values(f"{norm}.running_{key}") for key in ("mean", "var"))
    scale = parts.values(f"{norm}.weight") / np.sqrt(variance.astype(np.float64) + stats.eps)
    bias = (parts.values(f"{norm}.bias") - mean * scale).astype(np.float32)
    weight = parts.weight(name).scaled(scale)
    return Layer(weight, bias, source, module.stride[0], residual, activation, alive=parts.alive.get(name))


def _dbsn(network: DBSN, parts: Parts) -> list[Layer]:
    names = [f"hidden.{i}" for i in range(len(network.hidden))]
    layers = [
        Layer(
            parts.weight(name),
            parts.values(f"{name}.bias"),
            source,
            activation="tanh",
            alive=parts.alive.get(name),
        )
        for source, name in enumerate(names, IMAGE)
    ]
    return [*layers, Layer(parts.weight("head"), parts.values("head.bias"), len(layers) - 1)]


def _numpy(values: Tensor) -> Array:
    return values.detach().float().cpu().contiguous().numpy().copy()
