"""What a masked network lets through, found without writing its graph down.

The network runs once, forward and backward, on an image of zeros and an image of ones, while its
layers pass on signals instead of features. A unit whose signal is the same for both images carries
nothing of them; one whose gradient is zero makes no difference.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from granprune.errors import UserError
from granprune.masking import MaskedModel, evaluating, raw_weight

SIGNAL = 2**-7  # small, so that no activation saturates


@dataclass
class Call:
    """One use of a layer: which input units carry a signal, and which outputs matter."""

    positions: int  # of the output, for one image
    live_in: Tensor  # (in,) bool
    live_out: Tensor  # (out,) bool, known after the backward pass


class Layer:
    """A convolution or linear layer that passes on signals instead of features.

    Args:
        module: The layer.
        mask: The mask on its weight, if there is one.
        effective: Whether signals travel along kept weights only. Otherwise they start afresh at
            each layer, and nothing but a gate right before or after a layer can silence a weight.
    """

    def __init__(self, module: nn.Conv2d | nn.Linear, mask: Tensor | None, effective: bool) -> None:
        weight = raw_weight(module)
        kept = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask
        self.groups, self.axis = (module.groups, 0) if isinstance(module, nn.Conv2d) else (1, -1)
        self.kept = kept.reshape(self.groups, len(weight) // self.groups, weight.shape[1], -1)
        # (groups, out / groups, in / groups): which units a signal gets through between.
        self.joined = self.kept.any(3) if effective else None
        self.biases = 0 if module.bias is None else module.bias.numel()
        self.calls: list[Call] = []

    def hook(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return _PassOn.apply(inputs[0], self, output.shape)

    def forward(self, x: Tensor, shape: torch.Size) -> tuple[Tensor, Call]:
        live_in = self._units(x[0] != x[1])
        live = self._through(live_in.view(self.groups, 1, -1), 2)
        self.calls.append(Call(shape[1:].numel() // len(live), live_in, torch.zeros_like(live)))
        return self._signal(live, x, shape), self.calls[-1]

    def backward(self, gradient: Tensor, call: Call, shape: torch.Size) -> Tensor:
        call.live_out = self._units(gradient[1] != 0)
        return self._signal(self._through(call.live_out.view(self.groups, -1, 1), 1), gradient, shape)

    def macs(self) -> int:
        return sum(call.positions * int(self._kept(call).count_nonzero()) for call in self.calls)

    def dense_macs(self) -> int:
        return sum(call.positions * self.kept.numel() for call in self.calls)

    def kept_weights(self) -> int:
        return int(_any([self._kept(call) for call in self.calls]).count_nonzero())

    def kept_parameters(self) -> int:
        biases = int(_any([call.live_out for call in self.calls]).sum()) if self.biases else 0
        return self.kept_weights() + biases

    def _through(self, live: Tensor, side: int) -> Tensor:
        """The units on the other side that a signal gets to."""
        if self.joined is None:
            return torch.ones_like(self.kept[..., 0]).any(side).flatten()
        return (self.joined & live).any(side).flatten()

    def _kept(self, call: Call) -> Tensor:
        live_in = call.live_in.view(self.groups, 1, -1, 1)
        return self.kept & live_in & call.live_out.view(self.groups, -1, 1, 1)

    def _units(self, live: Tensor) -> Tensor:
        """The units that are live at any position of an image."""
        return live.movedim(self.axis, 0).reshape(live.shape[self.axis], -1).any(1)

    def _signal(self, units: Tensor, like: Tensor, shape: torch.Size) -> Tensor:
        """An image without and one with a signal, at every position of the live units."""
        images = like.new_zeros(shape)
        images[1].movedim(self.axis, -1)[:] = units * SIGNAL
        return images


class _PassOn(torch.autograd.Function):
    """What a layer does to signals on their way forward and to gradients on their way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Layer, shape: torch.Size) -> Tensor:
        ctx.layer, ctx.shape = layer, x.shape
        output, ctx.call = layer.forward(x, shape)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.layer.backward(gradients[0], ctx.call, ctx.shape), None, None


class Norm:
    """Batch normalisation that lets signals through and notes which channels matter."""

    def __init__(self, module: nn.Module) -> None:
        self.parameters = len(list(module.parameters(recurse=False)))  # a channel
        self.live_out: list[Tensor] = []

    def hook(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        signal = inputs[0].clone()  # a following in-place activation must not change the input
        signal.register_hook(self.note)
        return signal

    def note(self, gradient: Tensor) -> None:
        live = gradient[1] != 0  # (channels, ...); without positions after a linear layer
        self.live_out.append(live.reshape(len(live), -1).any(1))

    def kept_parameters(self) -> int:
        return self.parameters * int(_any(self.live_out).sum())


def _any(live: list[Tensor]) -> Tensor:
    """Whether live in any call; a part of the network that never runs keeps nothing."""
    return torch.stack(live).any(0) if live else torch.zeros(0, dtype=torch.bool)


def trace(
    model: MaskedModel, image_shape: tuple[int, int, int], effective: bool
) -> tuple[dict[str, Layer], list[Norm]]:
    """Send signals through the network and back."""
    layers, norms = _parts(model, effective)
    parameter = next(model.parameters())
    hooks = {model.module(name): layer.hook for name, layer in layers.items()} | {
        module: norm.hook for module, norm in norms.items()
    }
    # In front of the gates' own hooks, which then mask the signal.
    handles = [module.register_forward_hook(hook, prepend=True) for module, hook in hooks.items()]
    try:
        with evaluating(model), torch.inference_mode(False), torch.enable_grad():
            images = torch.zeros(2, *image_shape, dtype=parameter.dtype, device=parameter.device)
            images[1] = SIGNAL
            output = model(images.requires_grad_())
            torch.autograd.grad(output.sum(), images)
    finally:
        for handle in handles:
            handle.remove()
    return layers, list(norms.values())


def _parts(model: MaskedModel, effective: bool) -> tuple[dict[str, Layer], dict[nn.Module, Norm]]:
    """The modules with parameters, by name or by module."""
    masks = model.weight_masks()
    layers: dict[str, Layer] = {}
    norms: dict[nn.Module, Norm] = {}
    for name, module in model.network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            layers[name] = Layer(module, masks.get(name), effective)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.SyncBatchNorm):
            norms[module] = Norm(module)
        elif any(True for _ in module.parameters(recurse=False)) and not isinstance(
            module, parametrize.ParametrizationList
        ):
            raise UserError(
                f"cannot count the {type(module).__name__} {name!r}: parameters are counted for "
                "Conv2d, Linear and BatchNorm"
            )
    return layers, norms
