"""A convolution, its batch normalisation and what follows, in as few passes over memory as can be had."""

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
    library = batch_norm.library_for(x, norm)
    found = None if library is None else convolution.find(conv, x)
    if library is None or found is None:
        return batch_norm.normalise(norm, conv(x), rows)
    return batch_norm.apply(library, norm, x, rows, convolution=found)


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
    library = batch_norm.library_for(x, norm)
    found = None if library is None else convolution.find(conv, x)
    if library is None or found is None or not _can_add(skip, x, *found):
        return batch_norm.normalise_relu(norm, act, conv(x), skip, rows)
    relu = batch_norm.is_relu(act)
    y = batch_norm.apply(library, norm, x, rows, skip, relu, found)
    return y if relu else act(y)


def _can_add(skip: Tensor | None, x: Tensor, found: Convolution, weight: Tensor) -> bool:
    return skip is None or (skip.dtype, tuple(skip.shape)) == (found.dtype, found.shape(x, weight))
