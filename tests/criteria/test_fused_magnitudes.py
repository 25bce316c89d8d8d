"""Compared with one gradient a sample, from autograd in float64."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from granprune import native
from granprune.criteria.fused_magnitudes import SOURCE, fused_magnitudes


def one_at_a_time(layer, x, dy, per_kernel, power):
    """The definition, word by word."""
    weight = layer.weight.detach().double().requires_grad_()
    total = 0.0
    for image, gradient in zip(x.double(), dy.double(), strict=True):
        y = nn.functional.conv2d(image[None], weight, None, layer.stride, layer.padding)
        (of_weight,) = torch.autograd.grad(y, weight, gradient[None])
        product = of_weight * weight.detach()
        if per_kernel:
            product = product.sum((2, 3), keepdim=True)
        total = total + product.abs() ** power
    return total


@given(
    samples=st.integers(1, 5),
    inputs=st.integers(1, 19),
    outputs=st.integers(1, 35),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    per_kernel=st.booleans(),
    power=st.integers(1, 2),
    channels_last=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_is_the_sum_over_single_samples(
    samples, inputs, outputs, size, kernel, stride, padding, per_kernel, power, channels_last
):
    assume(all(s + 2 * p >= k for s, p, k in zip(size, padding, kernel, strict=True)))
    torch.manual_seed(samples + inputs)
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.randn(samples, inputs, *size).contiguous(memory_format=layout)
    dy = torch.randn(layer(x).shape).contiguous(memory_format=layout)
    weight = layer.weight.detach()
    shape = torch.Size((outputs, inputs, 1, 1)) if per_kernel else weight.shape
    fused = fused_magnitudes(layer, weight, x, dy, shape, power)
    wanted = one_at_a_time(layer, x, dy, per_kernel, power)
    assert fused.shape == wanted.shape
    torch.testing.assert_close(fused.double(), wanted, rtol=1e-4, atol=1e-4)


def test_two_samples_by_hand():
    """A 1x1 kernel of weight 3: gradients 1 x 2 + 2 x 0 = 2 and -1 x 1 + 1 x -1 = -2, so |6| + |-6|."""
    layer = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.constant_(layer.weight, 3)
    x = torch.tensor([[[[1.0, 2]]], [[[-1.0, 1]]]])
    dy = torch.tensor([[[[2.0, 0]]], [[[1.0, -1]]]])
    weight = layer.weight.detach()
    assert fused_magnitudes(layer, weight, x, dy, weight.shape, 1).item() == 12
    assert fused_magnitudes(layer, weight, x, dy, weight.shape, 2).item() == 72


@pytest.mark.parametrize(
    "change, dtype, shape, power",
    [
        ({}, torch.float64, (4, 4, 3, 3), 1),
        ({}, torch.float32, (4, 1, 1, 1), 1),
        ({}, torch.float32, (4, 4, 3, 3), 3),
        ({"groups": 2}, torch.float32, (4, 2, 3, 3), 1),
        ({"dilation": 2}, torch.float32, (4, 4, 3, 3), 1),
        ({"padding": "same"}, torch.float32, (4, 4, 3, 3), 1),
        ({"padding_mode": "circular"}, torch.float32, (4, 4, 3, 3), 1),
    ],
)
def test_what_it_cannot_do_is_left_to_torch(change, dtype, shape, power):
    layer = nn.Conv2d(4, 4, 3, bias=False, **change).to(dtype)
    x = torch.randn(2, 4, 8, 8, dtype=dtype)
    assert fused_magnitudes(layer, layer.weight.detach(), x, layer(x), torch.Size(shape), power) is None


def test_without_a_compiler_it_is_left_to_torch(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    native.accelerator.cache_clear()
    try:
        layer, x = nn.Conv2d(4, 4, 3, bias=False), torch.randn(2, 4, 8, 8)
        weight = layer.weight.detach()
        assert fused_magnitudes(layer, weight, x, layer(x), weight.shape, 1) is None
    finally:
        native.accelerator.cache_clear()


@pytest.mark.parametrize("instructions", native.LEVELS)
def test_compiles_for_every_instruction_set(instructions, tmp_path, monkeypatch):
    monkeypatch.setenv("GRANPRUNE_CACHE", str(tmp_path))
    assert native.build(SOURCE, instructions, ("-fopenmp",)).exists()
