"""A convolution, its batch normalisation and what follows, in as few passes over memory as can be had."""

import ctypes
from typing import Any

from torch import Tensor, nn

from granprune import batch_norm, convolution
from granprune.convolution import Convolution


def conv_norm(conv: Any, norm: Any, x: Tensor, rows: Tensor | None = None) -> Tensor:
    """`norm(conv(x))`, whose modules run themselves where someone listens to them.

    Args:
        conv: The convolution, or what takes its place.
        norm: Its BatchNorm2d; in training its running statistics move.
        x: (B, in, H, W).
        rows: (out,) which of the normalisation's channels these are; None: all of them, in order.
    """
    compiled = _compiled(conv, norm, x)
    if compiled is None:
        return batch_norm.normalise(norm, conv(x), rows)
    return _apply(*compiled, conv, norm, x, rows)


def conv_norm_relu(
    conv: Any,
    norm: Any,
    act: nn.Module,
    x: Tensor,
    skip: Tensor | None = None,
    rows: Tensor | None = None,
) -> Tensor:
    """`act(norm(conv(x)) + skip)`, whose modules run themselves where someone listens to them.

    Args:
        conv: The convolution, or what takes its place.
        norm: Its BatchNorm2d; in training its running statistics move.
        act: The ReLU.
        x: (B, in, H, W).
        skip: (B, out, H / stride, W / stride), added before the activation.
        rows: (out,) which of the normalisation's channels these are; None: all of them, in order.
    """
    compiled = _compiled(conv, norm, x)
    if compiled is None or (skip is not None and skip.dtype != compiled[1].dtype):
        return batch_norm.normalise_relu(norm, act, conv(x), skip, rows)
    relu = batch_norm.is_relu(act)
    y = _apply(*compiled, conv, norm, x, rows, skip, relu)
    return y if relu else act(y)


def _compiled(conv: nn.Module, norm: Any, x: Tensor) -> tuple[ctypes.CDLL, Convolution] | None:
    library = batch_norm.library_for(x, norm)
    found = None if library is None else convolution.find(conv, x)
    return None if library is None or found is None else (library, found)


def _apply(
    library: ctypes.CDLL,
    found: Convolution,
    conv: Any,
    norm: Any,
    x: Tensor,
    rows: Tensor | None,
    skip: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    images = x.to(found.dtype)  # what autocasting does
    return batch_norm.apply(library, norm, images, rows, skip, relu, (found, conv.weight))
