"""Compared with torch.nn.functional.batch_norm, whose statistics are pooled in another order."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from granprune.batch_norm import batch_norm

MOMENTUM, EPS = 0.25, 1e-5


def channels_last(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype).contiguous(memory_format=torch.channels_last)


def both(x, dy, dtype=torch.float64):
    """Output, the three gradients and the moved running statistics: ours, theirs."""
    channels = x.shape[1]
    weight, bias, mean, variance = (torch.rand(channels, dtype=dtype) for _ in range(4))
    results = []
    for function in batch_norm, lambda *a: F.batch_norm(*a[:5], True, *a[5:]):
        inputs = [value.clone().requires_grad_() for value in (x, weight, bias)]
        running = [mean.clone(), variance.clone()]
        y = function(inputs[0], *running, *inputs[1:], MOMENTUM, EPS)
        results.append([y.detach(), *torch.autograd.grad(y, inputs, dy), *running])
    return results


@given(
    batch=st.integers(2, 5),
    channels=st.integers(1, 40),
    height=st.integers(1, 5),
    width=st.integers(1, 34),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_is_batch_normalisation_at_every_shape(batch, channels, height, width, seed):
    torch.manual_seed(seed)
    x, dy = (channels_last(batch, channels, height, width) for _ in range(2))
    for mine, theirs in zip(*both(x, dy), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


def test_four_numbers_by_hand():
    """0, 2, 4, 6: mean 3, variance 5, unbiased 20 / 3."""
    x = torch.tensor([0.0, 2, 4, 6]).view(1, 2, 2, 1).permute(0, 3, 1, 2)
    mean, variance = torch.zeros(1), torch.ones(1)
    y = batch_norm(x, mean, variance, torch.ones(1), torch.ones(1), 0.5, 0.0)
    torch.testing.assert_close(y.flatten(), 1 + torch.tensor([-3.0, -1, 1, 3]) / 5**0.5)
    assert mean.item() == pytest.approx(1.5)
    assert variance.item() == pytest.approx((1 + 20 / 3) / 2)


def test_a_mean_far_from_zero_costs_no_more_precision_than_in_torch():
    torch.manual_seed(0)
    x = channels_last(8, 6, 16, 16, dtype=torch.float32) + 300
    exact = F.batch_norm(x.double(), None, None, training=True, eps=EPS)
    parameters = [torch.zeros(6), torch.ones(6), torch.ones(6), torch.zeros(6)]
    mine = batch_norm(x, *parameters, 0.0, EPS)
    theirs = F.batch_norm(x, *parameters, True, 0.0, EPS)
    assert (mine - exact).abs().max() <= 2 * (theirs - exact).abs().max()


def test_bfloat16_images_have_float32_statistics():
    torch.manual_seed(0)
    x, dy = (channels_last(8, 6, 16, 16, dtype=torch.bfloat16) for _ in range(2))
    mine, theirs = both(x, dy, torch.float32)
    assert mine[0].dtype == mine[1].dtype == torch.bfloat16
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one.float(), other.float(), rtol=2e-2, atol=2e-2)
    for one, other in zip(mine[2:], theirs[2:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_an_activation_may_work_in_place():
    x = channels_last(4, 3, 8, 8).requires_grad_()
    parameters = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    gradients = []
    for relu in torch.relu, torch.relu_:
        y = relu(batch_norm(x, *(p.clone() for p in parameters), *parameters, MOMENTUM, EPS))
        gradients.append(torch.autograd.grad(y.square().sum(), x)[0])
    torch.testing.assert_close(*gradients)


def test_a_single_value_a_channel_is_refused_as_in_torch():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        batch_norm(torch.ones(1, 3, 1, 1), *torch.ones(4, 3), MOMENTUM, EPS)


@pytest.mark.parametrize("channels, other", [(6, False), (16, True)])
def test_only_few_channels_take_the_other_way(channels, other):
    """Full vectors, and images that are not channels-last, are torch's own."""
    x = channels_last(4, channels, 8, 8).requires_grad_()
    y = batch_norm(x, *torch.ones(4, channels, dtype=torch.float64), MOMENTUM, EPS)
    assert ("NativeBatchNorm" in y.grad_fn.name()) == other
    y = batch_norm(x.contiguous(), *torch.ones(4, channels, dtype=torch.float64), MOMENTUM, EPS)
    assert "NativeBatchNorm" in y.grad_fn.name()
