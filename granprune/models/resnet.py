"""ResNet-20 for 32x32 images (He et al., 2016), with 1x1 convolution shortcuts."""

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from granprune.conv_norm import conv_norm, conv_norm_relu
from granprune.models.base import Prunable, PrunableLayer


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution without bias that keeps the image's size, or divides it by the stride."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


class Shortcut(nn.Conv2d):
    """A 1x1 convolution without bias, which may have a stride.

    On CPUs the gradient of a strided, channels-last one with fewer inputs than a vector has lanes, as kept
    channels may be, writes past oneDNN's workspace (github.com/uxlfoundation/oneDNN/issues/6035): wrong
    gradients, or a crash. There it reads the pixels of the stride itself.
    """

    LANES = 16

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, 1, stride, bias=False)

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        channels_last = x.is_contiguous(memory_format=torch.channels_last)
        if x.is_cpu and channels_last and torch.is_grad_enabled() and weight.shape[1] < self.LANES:
            pixels = nn.functional.avg_pool2d(x, 1, self.stride)  # slicing's gradient is not channels-last
            return nn.functional.conv2d(pixels, weight, bias)
        return super()._conv_forward(x, weight, bias)


class Projection(nn.Sequential):
    """A skip connection's convolution and its batch normalisation."""

    def forward(self, x: Tensor) -> Tensor:  # (B, in, H, W) -> (B, out, H / stride, W / stride)
        conv, norm = self
        return conv_norm(conv, norm, x)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a skip connection; every activation is a module of its own."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.act2 = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = Projection(Shortcut(inputs, outputs, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:  # (B, in, H, W) -> (B, out, H / stride, W / stride)
        y = conv_norm_relu(self.conv1, self.bn1, self.act1, x)
        return conv_norm_relu(self.conv2, self.bn2, self.act2, y, self.shortcut(x))


class ResNet20(Prunable):
    """ResNet-20: a stem, three stages of three residual blocks, a linear classifier.

    Prunable are the stem and the 18 block convolutions; shortcuts, batch normalisation and the
    classifier always stay. Weights start Xavier-normal, as in Heyman & Zylberberg (2024).

    Args:
        num_classes: Outputs of the classifier; the command line takes it from the data set.
        width: Channels of the stem and first stage; the later stages have 2 and 4 times as many.
        in_channels: Image channels (3 for RGB).
    """

    def __init__(self, num_classes: int = 10, width: PositiveInt = 16, in_channels: PositiveInt = 3) -> None:
        super().__init__()
        self.conv = conv3x3(in_channels, width)
        self.bn = nn.BatchNorm2d(width)
        self.act = nn.ReLU(inplace=True)
        widths = [width] * 4 + [2 * width] * 3 + [4 * width] * 3
        self.blocks = nn.Sequential(
            *(BasicBlock(i, o, 1 if i == o else 2) for i, o in zip(widths, widths[1:], strict=False))
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:  # (B, in_channels, 32, 32) -> (B, num_classes)
        x = self.blocks(conv_norm_relu(self.conv, self.bn, self.act, x))
        return self.head(self.pool(x).flatten(1))

    def prunable_layers(self) -> list[PrunableLayer]:
        """The stem and both convolutions of each block, whose second gate sits after the addition."""
        layers = [PrunableLayer("conv", "act", "act", "stem", "bn")]
        for i in range(len(self.blocks)):
            block = f"blocks.{i}"
            for k, role in (1, "inner"), (2, "outer"):
                act = f"{block}.act{k}"
                layers.append(PrunableLayer(f"{block}.conv{k}", act, act, role, f"{block}.bn{k}"))
        return layers
