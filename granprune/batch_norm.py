"""Batch normalisation in training, by whole vectors also where there are few channels.

PyTorch walks a channels-last image pixel by pixel, and channels that do not fill a vector one by one:
a layer that is pruned to 6 channels takes four times as long as with all 16. Seen as wider pixels, with
the channels of several neighbours side by side, the same numbers fill every vector; the statistics of the
wide channels are then pooled. The sums are shorter, so the errors of rounding are smaller, too.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LANES = 16  # numbers of float32 in the longest vectors


def batch_norm(
    x: Tensor, running_mean: Any, running_var: Any, weight: Tensor, bias: Tensor, momentum: float, eps: float
) -> Tensor:
    """Normalise by the batch's statistics, as `torch.nn.functional.batch_norm(..., training=True)` does.

    Args:
        x: (B, C, H, W).
        running_mean: (C,), moved towards the batch's mean.
        running_var: (C,), moved towards the batch's unbiased variance.
        weight: (C,).
        bias: (C,).
        momentum: The batch's share of the new running statistics.
        eps: Added to variances.
    """
    channels = x.shape[1]
    samples = x.numel() // channels
    narrow = x.is_cpu and x.is_contiguous(memory_format=torch.channels_last) and channels % LANES != 0
    if not narrow or samples < 2 or torch.compiler.is_compiling():
        return F.batch_norm(x, running_mean, running_var, weight, bias, True, momentum, eps)
    y, mean, variance = _BatchNorm.apply(x, weight, bias, eps)
    with torch.no_grad():
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance * (samples / (samples - 1)), momentum)
    return y


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = _widen(x)
        zeros = weight.new_zeros(wide.shape[1])  # only their type matters: the statistics get it
        sums = torch.batch_norm_update_stats(wide, zeros, zeros, 0.0)
        means, variances = (values.view(-1, len(weight)) for values in sums)
        between, mean = torch.var_mean(means, 0, correction=0)
        variance = between + variances.mean(0)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        scale = weight * (variance + eps).rsqrt()
        scales, shifts = _tile(wide, scale, bias - mean * scale)
        y = torch.empty_like(x, dtype=weight.dtype)
        torch.addcmul(shifts, wide, scales, out=_widen(y))
        return y.to(x.dtype), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, variance = ctx.saved_tensors
        wide, dy = _widen(x), _widen(dy.contiguous(memory_format=torch.channels_last))
        weights, means, variances = (values.flatten() for values in _tile(wide, weight, mean, variance))
        _, products, sums = torch.ops.aten.native_batch_norm_backward(
            dy, wide, weights, means, variances, None, None, False, ctx.eps, [False, True, True]
        )
        dweight, dbias = (values.view(-1, len(weight)).sum(0) for values in (products, sums))
        # dx = scale (dy - dbias / samples - normalised x * dweight / samples), as one line in x and dy
        deviation = (variance + ctx.eps).rsqrt()
        scale = weight * deviation
        per_sample = scale * (len(weight) / x.numel())
        slope = -per_sample * deviation * dweight
        scales, slopes, offsets = _tile(wide, scale, slope, -per_sample * dbias - slope * mean)
        dx = torch.empty_like(x, dtype=weight.dtype)
        torch.addcmul(offsets, wide, slopes, out=_widen(dx)).addcmul_(dy, scales)
        return dx.to(x.dtype), dweight, dbias, None


def _widen(x: Tensor) -> Tensor:
    """Several pixels of a row as one: (B, C, H, W), channels last, to (B, k C, H, W / k), the same memory."""
    batch, channels, height, width = x.shape
    pixels = math.gcd(width, LANES)
    wide = x.permute(0, 2, 3, 1).view(batch, height, width // pixels, pixels * channels)
    return wide.permute(0, 3, 1, 2)


def _tile(wide: Tensor, *values: Tensor) -> Tensor:
    """Numbers of each channel, n times (C,), for each channel of widened pixels, (n, k C, 1, 1)."""
    return torch.stack(values).repeat(1, wide.shape[1] // len(values[0]))[:, :, None, None]
