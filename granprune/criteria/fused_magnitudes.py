"""Sums over samples of a convolution's |weight x gradient|, without the samples' gradients ever in memory.

`fused_magnitudes.cpp` is compiled at first use. PyTorch's way is a convolution with a group a sample, at a
third of the speed; it remains for other precisions and layers, and where there is no compiler.
"""

import ctypes
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from granprune.native import accelerator

SOURCE = Path(__file__).with_suffix(".cpp")
LANES = 16  # outputs are padded to a multiple


def fused_magnitudes(
    layer: nn.Conv2d, weight: Tensor, x: Tensor, dy: Tensor, shape: torch.Size, power: int
) -> Tensor | None:
    """Sum over samples of |component's gradient| ** power, if the compiled function can do it.

    Args:
        layer: The convolution, for its stride and padding.
        weight: (O, I, Kh, Kw), before masking.
        x: (B, I, H, W), its input.
        dy: (B, O, H', W'), the gradient with respect to its output.
        shape: Of the mask: that of the weight, or (O, I, 1, 1), an entry a kernel.
        power: 1 or 2.

    Returns:
        Sums of that shape; None where PyTorch has to do it.
    """
    outputs, inputs, *kernel = weight.shape
    per_kernel = tuple(shape) == (outputs, inputs, 1, 1)
    possible = (
        (per_kernel or shape == weight.shape)
        and power in (1, 2)
        and layer.groups == 1
        and layer.dilation == (1, 1)
        and not isinstance(layer.padding, str)
        and layer.padding_mode == "zeros"
        and all(values.is_cpu and values.dtype == torch.float32 for values in (weight, x, dy))
    )
    library = accelerator(SOURCE) if possible else None
    if library is None:
        return None
    more, threads = -outputs % LANES, torch.get_num_threads()
    x = x.permute(0, 2, 3, 1).contiguous()
    dy = F.pad(dy.permute(0, 2, 3, 1), (0, more)).contiguous()
    weight = F.pad(weight.permute(2, 3, 1, 0), (0, more)).contiguous()
    sums = torch.zeros(threads, *(1, 1) if per_kernel else kernel, inputs, outputs + more)
    axes = [
        number
        for axis in (0, 1)
        for number in (
            x.shape[1 + axis],
            dy.shape[1 + axis],
            kernel[axis],
            layer.stride[axis],
            int(layer.padding[axis]),
        )
    ]
    numbers = [*axes, len(x), inputs, outputs + more, power, per_kernel, threads]
    convolution = (ctypes.c_int64 * len(numbers))(*numbers)
    pointers = [ctypes.c_void_p(values.data_ptr()) for values in (x, dy, weight, sums)]
    library.granprune_magnitudes(ctypes.byref(convolution), *pointers)
    return sums.sum(0)[..., :outputs].permute(3, 2, 0, 1)
