"""Convolutions of channels-last images on CPUs with AVX-512, compiled at first use.

They share their passes over memory with the normalisation that follows: its statistics are summed while an
image of outputs is still in the cache, and the gradient that it hands back is never written out.
"""

import ctypes
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from granprune.native import accelerator, level, pointers, watched

SOURCE = Path(__file__).with_name("convolution.cpp")
MOST_CHANNELS = 64
CHUNKS = 32, 16  # of a batch, whose sums are made one by one, forward and backward
FORMS = frozenset(
    ((k, k), (k // 2, k // 2), (s, s), (1, 1), 1, None, "zeros") for k in (1, 3) for s in (1, 2)
)  # of convolutions: kernel, padding, stride, dilation, groups, bias, padding mode


@dataclass(frozen=True)
class Convolution:
    """A convolution whose padding keeps the image's size, or divides it by the stride.

    Args:
        library: The compiled functions.
        dtype: Of the images; weights stay in float32.
        kernel: 1 or 3.
        stride: 1 or 2.
    """

    library: ctypes.CDLL
    dtype: torch.dtype
    kernel: int
    stride: int

    def shape(self, x: Tensor, weight: Tensor) -> tuple[int, ...]:
        """Of the outputs."""
        return len(x), len(weight), *(size // self.stride for size in x.shape[2:])

    def forward(self, x: Tensor, weight: Tensor, mean: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The outputs, and the variance of each channel if the mean is wanted.

        Args:
            x: (B, in, H, W), channels-last.
            weight: (out, in, kernel, kernel).
            mean: (out), where the mean of each output channel is to be written.
        """
        y = torch.empty(self.shape(x, weight), dtype=x.dtype, memory_format=torch.channels_last)
        variance = None if mean is None else torch.empty(len(weight), dtype=torch.float64)
        self.library.granprune_convolution_forward(
            *self._arguments(x, weight, CHUNKS[0]), *pointers(y, mean, variance)
        )
        return y, variance

    def backward(
        self, x: Tensor, weight: Tensor, normalisation: "Normalisation", wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of the inputs and weights that are wanted.

        Args:
            x: As in `forward`.
            weight: As in `forward`.
            normalisation: From what the outputs' gradient follows.
            wanted: Whether that of x, and whether that of the weights.
        """
        dx = torch.empty_like(x) if wanted[0] else None
        dweight = torch.empty_like(weight, memory_format=torch.channels_last) if wanted[1] else None
        self.library.granprune_convolution_backward(
            *self._arguments(x, weight, CHUNKS[1]),
            ctypes.byref(normalisation.structure()),
            *pointers(dx, dweight),
        )
        return dx, dweight

    def plain(self, x: Tensor, weight: Tensor) -> Tensor:
        """The outputs by PyTorch's convolution."""
        return F.conv2d(x, weight.to(x.dtype), None, self.stride, self.kernel // 2)

    def _arguments(self, x: Tensor, weight: Tensor, chunks: int) -> tuple[Any, ...]:
        """The first four of both functions."""
        images, inputs, height, width = x.shape
        parts = torch.get_num_threads(), min(chunks, images)
        shape = _Shape(images, height, width, inputs, len(weight), self.kernel, self.stride, *parts)
        return ctypes.byref(shape), *pointers(x, weight), (ctypes.c_int64 * 4)(*weight.stride())


@dataclass(frozen=True)
class Normalisation:
    """What follows the outputs y: their gradient is scale x gradient + slope x y + offset.

    Args:
        y: (B, out, H, W).
        gradient: Of the normalised outputs, of the same shape; zero after a ReLU that is not passed.
        lines: (4, out): scale, shift, slope and offset.
        relu: Whether scale x y + shift went through a ReLU.
    """

    y: Tensor
    gradient: Tensor
    lines: Tensor
    relu: bool

    def structure(self) -> ctypes.Structure:
        return _Normalisation(*pointers(self.y, self.gradient, *self.lines), self.relu)


def find(conv: Any, x: Tensor) -> tuple[Convolution, Tensor] | None:
    """The compiled form of a convolution and its weights, if there is one for such images.

    Args:
        conv: A Conv2d, or a module that applies its `layer`, which is one, with a `weight` of its own.
        x: (B, in, H, W).
    """
    layer = conv if isinstance(conv, nn.Conv2d) else getattr(conv, "layer", None)
    if not (
        type(x) is Tensor  # not a tracer's
        and x.is_cpu
        and x.ndim == 4
        and x.is_contiguous(memory_format=torch.channels_last)
        and not torch.compiler.is_compiling()
        and isinstance(layer, nn.Conv2d)
        and type(layer).forward is nn.Conv2d.forward
        and not watched(conv)
        and not watched(layer)
        and layer.bias is None
        and _form(layer) in FORMS
    ):
        return None
    weight = conv.weight  # masked, or picked, each time that it is asked for
    dtype = _dtype(x, weight)
    kernel, stride = layer.kernel_size[0], layer.stride[0]
    if dtype is None or not _fits(kernel, stride, dtype, *weight.shape[:2], *x.shape):
        return None
    narrow = dtype == torch.float32 and kernel == 3 and stride == 1 and _narrow(*weight.shape[:2])
    library = _library(dtype, narrow)
    return None if library is None else (Convolution(library, dtype, kernel, stride), weight)


def _narrow(outputs: int, inputs: int) -> bool:
    """Whether short vectors have fewer idle lanes."""
    short, long = (math.ceil(outputs / n) * math.ceil(inputs / n) * n * n for n in (8, 16))
    return short < long


def align(x: Tensor, index: Tensor, inverse: Tensor) -> Tensor | None:
    """Channels of one feature map in the order of another one, or None if the compiled function cannot do it.

    Args:
        x: (B, have, H, W).
        index: (want,) int32, which of x's channels each one is; -1 for zeros.
        inverse: (have,) int32, where each of x's channels went; -1 if nowhere.
    """
    possible = (
        type(x) is Tensor
        and x.is_cpu
        and x.dtype == torch.float32
        and x.is_contiguous(memory_format=torch.channels_last)
        and not torch.compiler.is_compiling()
        and 0 < min(len(index), len(inverse)) <= max(len(index), len(inverse)) <= MOST_CHANNELS
    )
    library = _library(torch.float32) if possible else None
    return None if library is None else _Align.apply(library, x, index, inverse)


class _Align(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, library: ctypes.CDLL, x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.library, ctx.index, ctx.inverse = library, index, inverse
        shape = len(x), len(index), *x.shape[2:]
        y = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
        pixels = x.numel() // x.shape[1]
        library.granprune_align(
            x.data_ptr(),
            pixels,
            len(inverse),
            len(index),
            index.data_ptr(),
            torch.get_num_threads(),
            y.data_ptr(),
        )
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        dy = dy.contiguous(memory_format=torch.channels_last)
        return None, _Align.apply(ctx.library, dy, ctx.inverse, ctx.index), None, None


def _form(conv: nn.Conv2d) -> tuple[Any, ...]:
    return (
        conv.kernel_size,
        conv.padding,
        conv.stride,
        conv.dilation,
        conv.groups,
        conv.bias,
        conv.padding_mode,
    )


def _fits(
    kernel: int,
    stride: int,
    dtype: torch.dtype,
    outputs: int,
    inputs: int,
    images: int,
    channels: int,
    height: int,
    width: int,
) -> bool:
    if (
        not images
        or channels != inputs
        or not 0 < min(inputs, outputs) <= max(inputs, outputs) <= MOST_CHANNELS
    ):
        return False
    if kernel == 3 and stride == 1 and dtype == torch.float32:  # 8 patches of 2 x 2 pixels at once
        return height % 2 == width % 2 == 0 and height * width % 32 == 0
    # Rows of outputs and inputs are whole tiles: of 8 pixels and 32 channels, or 16 and 16.
    sides = (width, inputs), (width // stride, outputs)
    tiles = all(count in (16, 32, 64) and size % (8 if count > 16 else 16) == 0 for size, count in sides)
    return tiles and height % stride == 0


def _dtype(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """Of the images within the convolution, as autocasting has it."""
    if weight.dtype != torch.float32:
        return None
    if torch.is_autocast_enabled("cpu"):
        wanted = torch.get_autocast_dtype("cpu")
        return wanted if wanted == torch.bfloat16 and x.dtype in (wanted, torch.float32) else None
    return x.dtype if x.dtype == torch.float32 else None


@cache
def _library(dtype: torch.dtype, narrow: bool = False) -> ctypes.CDLL | None:
    half = dtype == torch.bfloat16
    if level() != "AVX512" or (half and not torch.cpu._is_avx512_bf16_supported()):
        return None
    flags = ("-DBFLOAT16", "-mavx512bf16") if half else ("-DNARROW",) if narrow else ()
    library = accelerator(SOURCE, flags)
    if library is not None:
        for function in library.granprune_convolution_forward, library.granprune_convolution_backward:
            function.argtypes, function.restype = [ctypes.c_void_p] * 7, None
        if not flags:
            size, pointer = ctypes.c_int64, ctypes.c_void_p
            library.granprune_align.argtypes = [pointer, size, size, size, pointer, size, pointer]
            library.granprune_align.restype = None
    return library


class _Shape(ctypes.Structure):  # these two as in convolution.cpp
    _fields_ = [
        (name, ctypes.c_int64)
        for name in "images height width inputs outputs kernel stride threads chunks".split()
    ]


class _Normalisation(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in "y gradient scale shift slope offset".split()),
        ("relu", ctypes.c_bool),
    ]
