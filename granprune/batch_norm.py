"""Batch normalisation, addition and ReLU of channels-last images in two passes over memory each way.

PyTorch takes up to four passes forward and six backward, and walks channels that do not fill a vector one by
one, so that a layer with 6 channels left takes four times as long as with all 16. `batch_norm.cpp` is
compiled at first use; without a compiler PyTorch's own operations are taken, and a warning says so.
"""

import ctypes
import math
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from granprune.convolution import Convolution, Normalisation
from granprune.native import accelerator, pointers, watched

SOURCE = Path(__file__).with_suffix(".cpp")
LANES = 16  # numbers of float32 in the longest vectors
ROW = 64  # numbers of a wide row, at least
DTYPES = torch.float32, torch.bfloat16


def normalise(norm: Any, x: Tensor, rows: Tensor | None = None) -> Tensor:
    """What a batch normalisation does, in training or in evaluation.

    Args:
        norm: The BatchNorm2d; in training its running statistics move.
        x: (B, C, H, W).
        rows: (C,) which of the layer's channels these are; None: all of them, in order.
    """
    library = library_for(x, norm)
    return _plainly(norm, x, rows) if library is None else apply(library, norm, x, rows)


def normalise_relu(
    norm: Any, act: nn.Module, x: Tensor, skip: Tensor | None = None, rows: Tensor | None = None
) -> Tensor:
    """`act(norm(x) + skip)`, whose modules run themselves where someone listens to them.

    Args:
        norm: The BatchNorm2d; in training its running statistics move.
        act: The ReLU.
        x: (B, C, H, W).
        skip: (B, C, H, W), added before the activation.
        rows: (C,) which of the layer's channels these are; None: all of them, in order.
    """
    library = library_for(x, norm)
    if library is not None and (skip is None or (skip.dtype, skip.shape) == (x.dtype, x.shape)):
        relu = is_relu(act)
        y = apply(library, norm, x, rows, skip, relu)
        return y if relu else act(y)
    y = _plainly(norm, x, rows)
    return act(y if skip is None else y + skip)


def is_relu(act: nn.Module) -> bool:
    """Whether the activation is a ReLU to which nobody listens."""
    return type(act) is nn.ReLU and not watched(act)


def library_for(x: Tensor, norm: Any) -> ctypes.CDLL | None:
    """The compiled functions, if they can do it."""
    plain = (
        type(x) is not Tensor  # a tracer's
        or not x.is_cpu
        or x.dtype not in DTYPES
        or torch.compiler.is_compiling()
        or not x.is_contiguous(memory_format=torch.channels_last)
        or x.numel() <= x.shape[1]
        or not _has_form(norm)
    )
    return None if plain else _library()


def _has_form(norm: Any) -> bool:
    return (
        type(norm) is nn.BatchNorm2d
        and norm.weight is not None
        and norm.weight.dtype == torch.float32
        and norm.running_mean is not None
        and norm.momentum is not None
        and not watched(norm)
    )


def _plainly(norm: Any, x: Tensor, rows: Tensor | None) -> Tensor:
    if rows is None:
        return norm(x)
    mean, variance, weight, bias = (
        values[rows] for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    y = F.batch_norm(x, mean, variance, weight, bias, norm.training, norm.momentum, norm.eps)
    if norm.training:
        norm.running_mean[rows], norm.running_var[rows] = mean, variance
        norm.num_batches_tracked += 1
    return y


def apply(
    library: ctypes.CDLL,
    norm: Any,
    x: Tensor,
    rows: Tensor | None = None,
    skip: Tensor | None = None,
    relu: bool = False,
    convolution: tuple[Convolution, Tensor] | None = None,
) -> Tensor:
    """What the compiled functions make of x.

    Args:
        library: From `library_for`.
        norm: The BatchNorm2d.
        x: (B, C, H, W).
        rows: (C,) which of the layer's channels these are; None: all of them, in order.
        skip: (B, C, H, W), added after normalisation.
        relu: Whether a ReLU comes last.
        convolution: One that comes first, and its weights.
    """
    first, kernels = convolution or (None, None)
    if first is not None:
        x = x.to(first.dtype)  # what autocasting does
    y = _Norm.apply(library, norm, rows, relu, first, x, kernels, skip, norm.weight, norm.bias)
    if norm.training:
        norm.num_batches_tracked += 1
    return y


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        library: ctypes.CDLL,
        norm: Any,
        rows: Tensor | None,
        relu: bool,
        convolution: Convolution | None,
        images: Tensor,
        kernels: Any,
        skip: Tensor | None,
        weight: Tensor,
        bias: Tensor,
    ) -> Tensor:
        x, variance, statistics = images, None, torch.empty(4, len(weight) if rows is None else len(rows))
        if convolution is not None:
            x, variance = convolution.forward(images, kernels, statistics[0] if norm.training else None)
        if skip is not None:
            skip = skip.contiguous(memory_format=torch.channels_last)
        ctx.flags = norm.training, relu
        channels = _Channels(
            *pointers(rows, weight, bias, norm.running_mean, norm.running_var), norm.momentum, norm.eps
        )
        y = torch.empty_like(x)
        library.granprune_norm_forward(
            *_shape(x), ctypes.byref(channels), *ctx.flags, *pointers(x, skip, y, statistics, variance)
        )
        after = y if relu and skip is not None else None
        before = (None, None) if convolution is None else (images, kernels)
        ctx.save_for_backward(rows, *before, x, after, statistics, weight, bias)
        ctx.library, ctx.convolution, ctx.eps, ctx.skipped = library, convolution, norm.eps, skip is not None
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        nothing = None, None, None, None, None
        if torch.is_grad_enabled():  # whoever asks for the gradient's graph wants to differentiate it
            return *nothing, *_backward_with_graph(ctx, dy)
        rows, images, kernels, x, y, statistics, weight, bias = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        convolution: Convolution | None = ctx.convolution
        dx = torch.empty_like(x) if convolution is None else None
        dskip = None if y is None else torch.empty_like(x)
        dweight = dbias = dkernels = None
        if ctx.needs_input_grad[8] or ctx.needs_input_grad[9]:
            dweight, dbias = torch.zeros(2, len(weight))
        line = torch.empty(2, x.shape[1])
        ctx.library.granprune_norm_backward(
            *_shape(x), *ctx.flags, *pointers(rows, x, y, dy, statistics, dskip, dx, dweight, dbias, line)
        )
        if convolution is not None:
            lines = torch.cat([statistics[2:], line])
            relu = ctx.flags[1] and y is None  # else the ReLU is accounted for
            normalisation = Normalisation(x, dy if dskip is None else dskip, lines, relu)
            dx, dkernels = convolution.backward(images, kernels, normalisation, ctx.needs_input_grad[5:7])
        if ctx.skipped and y is None:
            dskip = dy
        return *nothing, dx, dkernels, dskip, dweight, dbias


def _backward_with_graph(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of images or x, kernels, skip, weight and bias by PyTorch's operations."""
    rows, images, kernels, x, y, (mean, inverse, _, _), weight, bias = ctx.saved_tensors
    training, relu = ctx.flags
    if ctx.convolution is not None:
        x = ctx.convolution.plain(images, kernels)
    chosen = [values if rows is None else values[rows] for values in (weight, bias)]
    running = (None, None) if training else (mean, inverse**-2 - ctx.eps)
    normal = F.batch_norm(x, running[0], running[1], chosen[0], chosen[1], training, 0.0, ctx.eps)
    if relu:
        dy = dy * ((normal if y is None else y) > 0)
    first = x if ctx.convolution is None else images
    sources = first, kernels, weight, bias
    wanted = [values for values in sources if values is not None and values.requires_grad]
    found = iter(torch.autograd.grad(normal, wanted, dy, create_graph=True))
    dfirst, dkernels, dweight, dbias = (
        next(found) if values is not None and values.requires_grad else None for values in sources
    )
    return dfirst, dkernels, dy if ctx.skipped else None, dweight, dbias


class _Shape(ctypes.Structure):  # these two as in batch_norm.cpp
    _fields_ = [(name, ctypes.c_int64) for name in ("pixels", "channels", "row", "threads")]


class _Channels(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("index", "weight", "bias", "running_mean", "running_var")),
        *((name, ctypes.c_float) for name in ("momentum", "eps")),
    ]


def _shape(x: Tensor) -> tuple[bool, Any]:
    """The first two arguments of both functions."""
    channels = x.shape[1]
    pixels = x.numel() // channels
    wide = LANES // math.gcd(LANES, channels)  # pixels that fill vectors
    while wide * channels < ROW:
        wide *= 2
    shape = _Shape(pixels, channels, math.gcd(pixels, wide) * channels, torch.get_num_threads())
    return x.dtype == torch.bfloat16, ctypes.byref(shape)


@cache
def _library() -> ctypes.CDLL | None:
    library = accelerator(SOURCE)
    if library is not None:
        flag, pointer = ctypes.c_bool, ctypes.c_void_p
        library.granprune_norm_forward.argtypes = [flag, pointer, pointer, flag, flag, *[pointer] * 5]
        library.granprune_norm_backward.argtypes = [flag, pointer, flag, flag, *[pointer] * 10]
        library.granprune_norm_forward.restype = library.granprune_norm_backward.restype = None
    return library
