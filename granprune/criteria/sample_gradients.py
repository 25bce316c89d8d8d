"""Gradients of each sample's loss with respect to the masks, from batched passes.

A batch's backward pass holds them already: for a mask on activations as the gradient of a mask
copied once a sample; for a mask on a weight as the product of the layer's input and the gradient
of its output, before the sum over samples.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from granprune.criteria.fused_magnitudes import fused_magnitudes
from granprune.errors import UserError
from granprune.masking import MaskedModel, raw_weight

CHUNK = 2**24  # numbers held at most while a layer's samples are multiplied out: 64 MiB
GROUPS = 16  # samples of one convolution; more are slower where layers are wide


@dataclass
class UnitGradients:
    """One gradient a sample, (B, *mask.shape)."""

    values: Tensor

    def chunks(self) -> Iterator[Tensor]:
        """The samples' gradients in order, some at a time."""
        yield self.values

    def magnitudes(self, power: int = 1) -> Tensor:
        """Sum over samples of |gradient| ** power, of the mask's shape."""
        return self.values.abs().pow(power).sum(0)


@dataclass
class WeightGradients:
    """The two factors of each sample's weight gradient, multiplied out only when asked for."""

    model: MaskedModel
    layer: nn.Module
    inputs: Tensor  # (B, in, ...)
    outputs: Tensor  # gradient of the loss with respect to the layer's output, (B, out, ...)

    def chunks(self) -> Iterator[Tensor]:
        """The samples' gradients in order, some at a time, (b, *mask.shape)."""
        weight = raw_weight(self.layer).detach()
        for gradients in self._of_weight():
            yield self.model.granularity.total(gradients * weight)

    def magnitudes(self, power: int = 1) -> Tensor:
        """Sum over samples of |gradient| ** power, of the mask's shape."""
        weight = raw_weight(self.layer).detach()
        mask = self.model.granularity.total(weight)
        if (
            isinstance(self.layer, nn.Conv2d)
            and (fused := fused_magnitudes(self.layer, weight, self.inputs, self.outputs, mask.shape, power))
            is not None
        ):
            return fused
        if mask.shape != weight.shape:
            return sum((chunk.abs().pow(power).sum(0) for chunk in self.chunks()), torch.zeros_like(mask))
        # A mask entry a weight, and |y x w| = |y x| |w|.
        scale = weight.abs().pow(power)
        if isinstance(self.layer, nn.Linear):  # |y x| = |y| |x|, of which the sum is a matrix product
            return (self.outputs.abs().pow(power).T @ self.inputs.abs().pow(power)) * scale
        return sum((g.abs().pow(power).sum(0) for g in self._of_weight()), torch.zeros_like(weight)) * scale

    def _of_weight(self) -> Iterator[Tensor]:
        """The samples' gradients of the weight, some at a time, (b, *weight.shape)."""
        samples = min(GROUPS, max(1, CHUNK // raw_weight(self.layer).numel()))
        for x, y in zip(self.inputs.split(samples), self.outputs.split(samples), strict=True):
            yield _weight_gradients(self.layer, x, y)


def mask_gradients(
    model: MaskedModel, images: Tensor, labels: Tensor
) -> Mapping[str, UnitGradients | WeightGradients]:
    """Differentiate each sample's cross-entropy with respect to every mask.

    Args:
        model: In evaluation mode, so that samples do not meet in batch normalisation.
        images: (B, C, H, W).
        labels: (B,) class indices.
    """
    if model.granularity.on_weight:
        return _from_weights(model, images, labels)
    with torch.enable_grad(), model.soft_masks(len(images)) as soft:
        loss = F.cross_entropy(model(images), labels, reduction="sum")
        gradients = torch.autograd.grad(loss, list(soft.values()))
    return {name: UnitGradients(value) for name, value in zip(soft, gradients, strict=True)}


def _from_weights(model: MaskedModel, images: Tensor, labels: Tensor) -> dict[str, WeightGradients]:
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, GradientEdge] = {}

    def keep(name: str):
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if name in inputs:
                raise UserError(
                    f"samples' gradients need each layer to run once in a pass; {name} runs twice"
                )
            first = not output.requires_grad
            output.requires_grad_()
            # The edge, not the tensor: a following activation may change that in place.
            inputs[name], outputs[name] = args[0].detach(), get_gradient_edge(output)
            return output.clone() if first else output  # where gradients start, nothing may be changed

        return hook

    handles = [model.module(name).register_forward_hook(keep(name)) for name in model.layers]
    try:
        with torch.enable_grad(), _frozen(model):
            loss = F.cross_entropy(model(images), labels, reduction="sum")
        gradients = torch.autograd.grad(loss, [outputs[name] for name in model.layers])
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: WeightGradients(model, model.module(name), inputs[name], gradient)
        for name, gradient in zip(model.layers, gradients, strict=True)
    }


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Within the block, parameters get no gradients, so none are computed."""
    moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in moving:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in moving:
            parameter.requires_grad_()


def _weight_gradients(layer: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Each sample's gradient of the weight, (b, *weight.shape), from input x and output gradient y."""
    if isinstance(layer, nn.Linear):
        return y[:, :, None] * x[:, None, :]
    assert isinstance(layer, nn.Conv2d) and not isinstance(layer.padding, str)
    samples, (rows, *others) = len(x), layer.weight.shape
    # Samples side by side as channels, each in groups of its own.
    x, y = (factor.reshape(1, -1, *factor.shape[2:]) for factor in (x, y))
    gradients = conv2d_weight(
        x,
        (samples * rows, *others),
        y,
        layer.stride,
        layer.padding,
        layer.dilation,
        samples * layer.groups,
    )
    return gradients.unflatten(0, (samples, rows))
