"""One layer's mask: on its weight as a parametrization, or behind its gate as a hook."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from granprune.granularity import Granularity, OnWeight
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


def attach(network: nn.Module, layer: PrunableLayer, granularity: Granularity) -> Mask:
    """Put an all-ones mask on the layer and return it."""
    module: Any = network.get_submodule(layer.name)
    shape = granularity.total(module.weight.detach()).shape
    if isinstance(granularity, OnWeight):
        mask = Mask(shape, granularity.expand)
        parametrize.register_parametrization(module, "weight", mask)
        return mask
    gate = _gate(network, layer)
    gate.mask = Mask(shape)
    gate.register_forward_hook(_apply_mask)
    return gate.mask


def find(network: nn.Module, layer: PrunableLayer, granularity: Granularity) -> Mask:
    """The mask that `attach` put on the layer."""
    if not granularity.on_weight:
        return _gate(network, layer).mask
    module: Any = network.get_submodule(layer.name)
    return module.parametrizations.weight[0]


def detach(network: nn.Module, layer: PrunableLayer, granularity: Granularity) -> None:
    """Take the mask off again; the raw weight stays."""
    if granularity.on_weight:
        # Not `remove_parametrizations`: deep copies share their class, and it would take the property
        # `weight` off that class, so from the original too.
        module: Any = network.get_submodule(layer.name)
        raw = module.parametrizations.weight.original
        module.__class__ = type(module).__bases__[0]
        del module.parametrizations
        module.weight = raw
        return
    gate = _gate(network, layer)
    hooks = gate._forward_hooks
    for key in [key for key, hook in hooks.items() if hook is _apply_mask]:
        del hooks[key]
    del gate.mask


def _gate(network: nn.Module, layer: PrunableLayer) -> Any:
    assert layer.gate is not None
    return network.get_submodule(layer.gate)


def _apply_mask(gate: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    # A module-level function that reads the gate's own mask: copies and pickles own theirs.
    mask: Any = gate.mask
    return mask(output)
