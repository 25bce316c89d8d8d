"""Physically smaller networks: pruned channels and nodes are cut out, the output stays the same."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from granprune.conv_norm import conv_norm, conv_norm_relu
from granprune.convolution import align
from granprune.deploy.layers import Array, Layer, layers_of
from granprune.errors import UserError
from granprune.granularity import OnUnit
from granprune.masking import MaskedModel
from granprune.models import DBSN
from granprune.models.dbsn import ScaledTanh

Norm = tuple[nn.Module, Tensor | None]  # the layer, and which of its channels count; None: all


class Builder(Protocol):
    """Makes the layers of a smaller network from those of the whole one; indices are of kept units."""

    def conv(self, conv: Any, norm: Any, inputs: Tensor, outputs: Tensor) -> tuple[nn.Module, Norm]:
        """A convolution and its batch normalisation; there are inputs and outputs."""

    def norm(self, norm: Any, outputs: Tensor) -> Norm:
        """A batch normalisation of zeros, for a convolution without inputs."""

    def linear(self, linear: Any, inputs: Tensor, outputs: Tensor | None) -> nn.Module:
        """A linear layer; None: all outputs stay."""


def compact(model: MaskedModel, fold: bool = False) -> nn.Module:
    """A plain network without the pruned channels or nodes, in the mode (training or not) of the model.

    Masks of a residual stream may differ from block to block: a skip connection then picks the
    channels that both sides have. The parameters are copies and can be trained on.

    Args:
        model: A ResNet20 or DBSN masked by channels or nodes.
        fold: Whether to fold batch normalisation into the convolutions: faster, for inference only.

    Raises:
        UserError: The granularity is finer than channels, or the network is of another kind.
    """
    with torch.random.fork_rng(devices=[]):
        return assemble(model, layers_of(model), Copies(fold)).train(model.training)


def assemble(model: MaskedModel, layers: Sequence[Layer], builder: Builder) -> nn.Sequential:
    """Put a smaller network together.

    Args:
        model: A ResNet20 or DBSN masked by channels or nodes.
        layers: Its layers, which say what is alive.
        builder: Makes its layers.

    Raises:
        UserError: The granularity is finer than channels.
    """
    if not isinstance(model.granularity, OnUnit):
        kind = type(model.granularity).__name__
        raise UserError(f"{kind} cannot be cut out of a network: possible are Channels and Nodes")
    kept = iter([_indices(layer.alive, len(layer.bias)) for layer in layers])
    network = model.network
    return _dbsn(network, kept, builder) if isinstance(network, DBSN) else _resnet(network, kept, builder)


class Align(nn.Module):
    """Channels of one feature map in the order of another one; zeros where there is no such channel."""

    selection: Tensor  # (want, have, 1, 1), one where the channels are the same
    index: Tensor  # (want,) and (have,): where they come from and go to, or -1
    inverse: Tensor

    def __init__(self, have: Tensor, want: Tensor) -> None:
        super().__init__()
        same = want[:, None] == have
        self.register_buffer("selection", same.float()[:, :, None, None])
        for name, matches in ("index", same), ("inverse", same.T):
            present, place = matches.byte().max(1)
            self.register_buffer(name, torch.where(present > 0, place, -1).int(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # (B, have, H, W) -> (B, want, H, W)
        if not x.is_cpu:
            return self.gathered(x)  # GPUs may round what is convolved to TF32
        y = align(x, self.index, self.inverse)
        # Convolving is exact on CPUs, and faster than selecting both forward and backward.
        return F.conv2d(x, self.selection.to(x.dtype)) if y is None else y

    def gathered(self, x: Tensor) -> Tensor:
        """The same by selecting channels."""
        present, index = self.selection[:, :, 0, 0].max(1)
        return x.index_select(1, index) * present[:, None, None].to(x.dtype)


class Zeros(nn.Module):
    """A convolution without inputs or without outputs."""

    def __init__(self, outputs: int, stride: int) -> None:
        super().__init__()
        self.outputs, self.stride = outputs, stride

    def forward(self, x: Tensor) -> Tensor:  # (B, any, H, W) -> (B, outputs, H / stride, W / stride)
        height, width = (-(-size // self.stride) for size in x.shape[2:])
        return x.new_zeros(len(x), self.outputs, height, width)


class ConvNormAct(nn.Module):
    """A convolution, its batch normalisation, and ReLU unless it is a shortcut."""

    rows: Tensor | None

    def __init__(self, conv: nn.Module, norm: Norm, act: nn.Module | None) -> None:
        super().__init__()
        self.conv, self.act = conv, act
        self.norm, rows = norm
        self.register_buffer("rows", rows, persistent=False)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """From (B, in, H, W) to (B, out, H / stride, W / stride), the shape of what is added before ReLU."""
        if self.act is None:
            return conv_norm(self.conv, self.norm, x, self.rows)
        return conv_norm_relu(self.conv, self.norm, self.act, x, skip, self.rows)


class CompactBlock(nn.Module):
    """A residual block whose three parts keep their own channels."""

    def __init__(self, first: ConvNormAct, second: ConvNormAct, shortcut: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.shortcut = first, second, shortcut

    def forward(self, x: Tensor) -> Tensor:  # (B, in, H, W) -> (B, out, H / stride, W / stride)
        return self.second(self.first(x), self.shortcut(x))


class Copies:
    """Layers with copies of the kept parameters.

    Args:
        fold: Whether to fold batch normalisation into the convolutions.
    """

    def __init__(self, fold: bool) -> None:
        self.fold = fold

    def conv(self, conv: Any, norm: Any, inputs: Tensor, outputs: Tensor) -> tuple[nn.Module, Norm]:
        small = copy.deepcopy(conv)
        small.in_channels, small.out_channels = len(inputs), len(outputs)
        small.weight.data = conv.weight.detach()[outputs][:, inputs].clone()
        small_norm, rows = self.norm(norm, outputs)
        if self.fold:
            return fuse_conv_bn_eval(small.eval(), small_norm.eval()), (nn.Identity(), None)
        return small, (small_norm, rows)

    def norm(self, norm: Any, outputs: Tensor) -> tuple[nn.BatchNorm2d, None]:
        small = nn.BatchNorm2d(len(outputs), eps=norm.eps)
        for name, value in norm.state_dict().items():
            small.state_dict()[name].copy_(value[outputs] if value.ndim else value)
        return small, None

    def linear(self, linear: Any, inputs: Tensor, outputs: Tensor | None) -> nn.Linear:
        rows = torch.arange(linear.out_features) if outputs is None else outputs
        small = nn.Linear(1, 1)
        small.in_features, small.out_features = len(inputs), len(rows)
        small.weight.data = linear.weight.detach()[rows][:, inputs].clone()
        small.bias.data = linear.bias.detach()[rows].clone()
        return small


def _resnet(network: Any, kept: Iterator[Tensor], builder: Builder) -> nn.Sequential:
    inputs = torch.arange(network.conv.in_channels)
    outputs = next(kept)
    layers: list[nn.Module] = [_conv_norm_act(network.conv, network.bn, inputs, outputs, builder)]
    for block in network.blocks:
        small, outputs = _block(block, outputs, kept, builder)
        layers.append(small)
    head = builder.linear(network.head, outputs, None)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def _block(
    block: Any, inputs: Tensor, kept: Iterator[Tensor], builder: Builder
) -> tuple[CompactBlock, Tensor]:
    down = isinstance(block.shortcut, nn.Sequential)
    if down:
        next(kept)  # the shortcut keeps what the block's output keeps
    inner, outputs = next(kept), next(kept)
    first = _conv_norm_act(block.conv1, block.bn1, inputs, inner, builder)
    second = _conv_norm_act(block.conv2, block.bn2, inner, outputs, builder)
    if down:
        shortcut: nn.Module = _conv_norm_act(
            block.shortcut[0], block.shortcut[1], inputs, outputs, builder, relu=False
        )
    elif torch.equal(inputs, outputs):
        shortcut = nn.Identity()
    else:
        shortcut = Align(inputs, outputs) if len(inputs) else Zeros(len(outputs), 1)
    return CompactBlock(first, second, shortcut), outputs


def _conv_norm_act(
    conv: Any, norm: Any, inputs: Tensor, outputs: Tensor, builder: Builder, relu: bool = True
) -> ConvNormAct:
    act = nn.ReLU(inplace=True) if relu else None
    zeros = Zeros(len(outputs), conv.stride[0])
    if not len(outputs):
        return ConvNormAct(zeros, (nn.Identity(), None), act)
    if not len(inputs):
        return ConvNormAct(zeros, builder.norm(norm, outputs), act)
    return ConvNormAct(*builder.conv(conv, norm, inputs, outputs), act)


def _dbsn(network: DBSN, kept: Iterator[Tensor], builder: Builder) -> nn.Sequential:
    hidden: Any = network.hidden
    inputs = torch.arange(hidden[0].in_features)
    layers: list[nn.Module] = [nn.Flatten()]
    for linear in hidden:
        outputs = next(kept)
        layers += [builder.linear(linear, inputs, outputs), ScaledTanh()]
        inputs = outputs
    return nn.Sequential(*layers, builder.linear(network.head, inputs, None))


def _indices(alive: Array | None, count: int) -> Tensor:
    return torch.arange(count) if alive is None else torch.from_numpy(alive.nonzero()[0])
