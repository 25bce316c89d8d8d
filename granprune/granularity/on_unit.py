"""Components that are a layer's outputs."""

from typing import Any

from torch import Tensor, nn

from granprune.granularity.base import Granularity, Mask
from granprune.models.base import PrunableLayer


class OnUnit(Granularity):
    """Components are a layer's outputs; masks multiply what the layer's gate puts out."""

    on_weight = False

    def attach(self, network: nn.Module, layer: PrunableLayer) -> Mask:
        assert layer.gate is not None
        gate: Any = network.get_submodule(layer.gate)
        module: Any = network.get_submodule(layer.name)
        gate.mask = Mask(self.total(module.weight.detach()).shape)
        gate.register_forward_hook(_apply_mask)
        return gate.mask

    def detach(self, network: nn.Module, layer: PrunableLayer) -> None:
        gate: Any = network.get_submodule(layer.gate or "")
        hooks = gate._forward_hooks
        for key in [key for key, hook in hooks.items() if hook is _apply_mask]:
            del hooks[key]
        del gate.mask

    def find(self, network: nn.Module, layer: PrunableLayer) -> Mask:
        gate: Any = network.get_submodule(layer.gate or "")
        return gate.mask


class Channels(OnUnit):
    """Output channels of convolutions, masked where the layer's gate is."""

    def total(self, values: Tensor) -> Tensor:  # (*, out, in, kh, kw) -> (*, out, 1, 1)
        return values.sum((-3, -2, -1))[..., None, None]

    def applies(self, module: nn.Module, layer: PrunableLayer) -> bool:
        return isinstance(module, nn.Conv2d) and layer.gate is not None


class Nodes(OnUnit):
    """Output nodes of linear layers, masked where the layer's gate is."""

    def total(self, values: Tensor) -> Tensor:  # (*, out, in) -> (*, out)
        return values.sum(-1)

    def applies(self, module: nn.Module, layer: PrunableLayer) -> bool:
        return isinstance(module, nn.Linear) and layer.gate is not None


def _apply_mask(gate: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    # A module-level function that reads the gate's own mask: copies and pickles own theirs.
    mask: Any = gate.mask
    return mask(output)
