"""Compared with torch.nn.BatchNorm2d in float64, which takes another way through the numbers."""

import copy
import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from granprune import batch_norm, native
from granprune.batch_norm import normalise, normalise_relu


def channels_last(*shape, dtype=torch.float32):
    return torch.randn(*shape).to(dtype).contiguous(memory_format=torch.channels_last)


def layer(channels, training=True):
    norm = nn.BatchNorm2d(channels, momentum=0.25)
    for values in norm.weight, norm.bias, norm.running_mean, norm.running_var:
        nn.init.uniform_(values, 0.5, 1.5)
    return norm.train(training)


def both(norm, x, dy, skip=None, relu=True, rows=None):
    """Output, gradients of all inputs and running statistics: ours, and theirs in float64."""
    mine, theirs = norm, copy.deepcopy(norm).double()
    results = []
    for layer, dtype in (mine, None), (theirs, torch.float64):
        inputs = [v.detach().to(dtype or v.dtype).requires_grad_() for v in (x, skip) if v is not None]
        if dtype is None and relu:
            y = normalise_relu(layer, nn.ReLU(inplace=True), *inputs, rows=rows)
        elif dtype is None:
            y = normalise(layer, *inputs, rows=rows)
        else:
            whole = inputs[0]
            if rows is not None:
                whole = torch.zeros(len(x), layer.num_features, *x.shape[2:], dtype=dtype)
                whole = whole.index_copy(1, rows, inputs[0])
            y = layer(whole)
            y = y if rows is None else y[:, rows]
            y = y + inputs[1] if skip is not None else y
            y = y.relu() if relu else y
        wanted = [*inputs, layer.weight, layer.bias]
        moved = [layer.running_mean, layer.running_var]
        if rows is not None:
            moved = [values[rows] for values in moved]
        results.append([y.detach(), *torch.autograd.grad(y, wanted, dy.to(y.dtype)), *moved])
        assert layer.num_batches_tracked == layer.training
    return results


def far_from_kink(y, distance):
    """Where rounding cannot move a value across the ReLU's kink."""
    return (y.abs() > distance).to(y.dtype)


@given(
    batch=st.integers(1, 5),
    channels=st.integers(1, 40),
    height=st.integers(1, 5),
    width=st.integers(2, 34),
    relu=st.booleans(),
    skipped=st.booleans(),
    training=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=150, deadline=None)
def test_is_batch_normalisation_at_every_shape(batch, channels, height, width, relu, skipped, training, seed):
    torch.manual_seed(seed)
    x, dy, skip = (channels_last(batch, channels, height, width) for _ in range(3))
    norm = layer(channels, training)
    skip = skip if relu and skipped else None
    before = copy.deepcopy(norm).double()(x.double())
    dy = dy * far_from_kink(before if skip is None else before + skip, 1e-4)
    mine, theirs = both(norm, x, dy, skip, relu)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=2e-4)


def test_four_numbers_by_hand():
    """0, 2, 4, 6: mean 3, variance 5, unbiased 20 / 3; then -2 is added, and ReLU."""
    x = torch.tensor([0.0, 2, 4, 6]).view(1, 1, 2, 2).contiguous(memory_format=torch.channels_last)
    norm = nn.BatchNorm2d(1, eps=0.0, momentum=0.5)
    y = normalise_relu(norm, nn.ReLU(), x, torch.full_like(x, -1))
    torch.testing.assert_close(y.flatten(), torch.tensor([0, 0, 0, 3 / 5**0.5 - 1]))
    assert norm.running_mean.item() == pytest.approx(1.5)
    assert norm.running_var.item() == pytest.approx((1 + 20 / 3) / 2)
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("training", [True, False])
def test_some_channels_of_a_layer(training):
    """The others' parameters get gradients of zero, and their statistics stand still."""
    torch.manual_seed(0)
    norm, rows = layer(9, training), torch.tensor([7, 0, 4])
    others = torch.tensor([1, 2, 3, 5, 6, 8])
    before = copy.deepcopy(norm)
    x, dy = channels_last(4, 3, 6, 6), channels_last(4, 3, 6, 6)
    mine, theirs = both(norm, x, dy, relu=False, rows=rows)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-5)
    assert not mine[2][others].any() and not mine[3][others].any()
    for name, values in norm.named_buffers():
        if values.ndim:
            assert torch.equal(values[others], before.get_buffer(name)[others])


@pytest.mark.parametrize("mean", [0, 300, -3000])
def test_a_mean_far_from_zero_costs_no_more_precision_than_in_torch(mean):
    torch.manual_seed(0)
    x, norm = channels_last(8, 6, 16, 16) + mean, layer(6)
    exact = copy.deepcopy(norm).double()(x.double())
    theirs = copy.deepcopy(norm)(x)
    assert (normalise(norm, x) - exact).abs().max() <= 2 * (theirs - exact).abs().max()


def test_an_outlier_at_the_first_pixels_costs_no_precision():
    torch.manual_seed(0)
    x, norm = channels_last(64, 3, 32, 32), layer(3)
    x[0, :, :8] = 1e3
    exact = copy.deepcopy(norm).double()
    torch.testing.assert_close(normalise(norm, x).double(), exact(x.double()), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.running_var.double(), exact.running_var, rtol=1e-4, atol=1e-6)


def test_bfloat16_images_have_float32_statistics():
    torch.manual_seed(0)
    x, dy, skip = (channels_last(8, 6, 16, 16, dtype=torch.bfloat16) for _ in range(3))
    norm = layer(6)
    dy = dy * far_from_kink(copy.deepcopy(norm).double()(x.double()) + skip, 0.05).to(dy.dtype)
    mine, theirs = both(norm, x, dy, skip)
    assert mine[0].dtype == mine[1].dtype == mine[2].dtype == torch.bfloat16
    for one, other in zip(mine[:3], theirs[:3], strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-2, atol=1e-2)
    for one, other in zip(mine[3:], theirs[3:], strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-3)


def test_bfloat16_is_rounded_to_nearest_and_keeps_what_is_no_number():
    x = torch.tensor([1.0, 1.00390625, 1.01171875, -3e38, float("nan"), float("inf")]).view(1, 1, 2, 3)
    x = x.contiguous(memory_format=torch.channels_last)
    norm = nn.BatchNorm2d(1, eps=0.0).eval()
    skip = torch.zeros_like(x, dtype=torch.bfloat16)
    y = normalise(norm, x.to(torch.bfloat16))
    assert torch.equal(y.nan_to_num(7), x.to(torch.bfloat16).nan_to_num(7))
    norm.running_mean.fill_(-0.00390625)  # 1 and 1.0078125, both exact, become ties
    ties = torch.tensor([1.0, 1.0078125]).view(1, 1, 1, 2).to(torch.bfloat16)
    ties = ties.contiguous(memory_format=torch.channels_last)
    y = normalise(norm, ties).flatten().tolist()
    assert y == (ties.float() + 0.00390625).to(torch.bfloat16).flatten().tolist() == [1.0, 1.015625]
    assert normalise_relu(norm, nn.ReLU(), x.to(torch.bfloat16), skip).isnan().sum() == 1


def test_threads_change_nothing_but_rounding():
    torch.manual_seed(0)
    x, dy, norm = channels_last(16, 5, 8, 8), channels_last(16, 5, 8, 8), layer(5)
    results, threads = [], torch.get_num_threads()
    try:
        for count in 1, 3:
            torch.set_num_threads(count)
            results.append(both(copy.deepcopy(norm), x, dy, relu=False)[0])
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("skipped", [True, False])
def test_parameters_without_gradients(training, skipped):
    torch.manual_seed(0)
    x, dy, skip = (channels_last(3, 5, 4, 4).requires_grad_() for _ in range(3))
    wanted = (x, skip) if skipped else (x,)
    norm, gradients = layer(5, training), []
    for needed in True, False:
        same = copy.deepcopy(norm).requires_grad_(needed)
        y = normalise_relu(same, nn.ReLU(), *wanted)
        gradients.append(torch.autograd.grad(y, wanted, dy))
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("relu, skipped", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("some", [True, False])
def test_can_be_differentiated_twice(training, relu, skipped, some):
    """The gradient of a square of gradients, as GraSP needs it."""
    torch.manual_seed(0)
    norm, rows = layer(7, training), torch.tensor([5, 0, 2]) if some else None
    x, dy, skip = (channels_last(4, 3 if some else 7, 5, 5) for _ in range(3))
    found = []
    for module, dtype in (norm, torch.float32), (copy.deepcopy(norm).double(), torch.float64):
        inputs = [values.to(dtype).detach().requires_grad_() for values in (x, skip)[: 1 + skipped]]
        wanted = [*inputs, module.weight, module.bias]
        if relu:
            y = normalise_relu(module, nn.ReLU(), *inputs, rows=rows)
        else:
            y = normalise(module, *inputs, rows=rows)
        assert ("_Norm" in y.grad_fn.name()) == (dtype == torch.float32)
        gradients = torch.autograd.grad((y**3 * dy).sum(), wanted, create_graph=True)
        flow = sum(gradient.square().mean() for gradient in gradients)
        found.append([g.detach() for g in (*gradients, *torch.autograd.grad(flow, wanted))])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


def listen(module, how, seen):
    getattr(module, how)(lambda module, *rest: seen.append(type(module)))


@pytest.mark.parametrize(
    "how", ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"]
)
def test_modules_that_someone_listens_to_run_themselves(how):
    x, norm, act, seen = channels_last(2, 3, 4, 4).requires_grad_(), layer(3), nn.ReLU(), []
    for module in norm, act:
        listen(module, how, seen)
    normalise_relu(norm, act, x).sum().backward()
    assert set(seen) == {nn.BatchNorm2d, nn.ReLU}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("skipped", [True, False])
def test_a_mask_on_the_activation(training, skipped):
    """A hook on the ReLU, as masks of channels are: the compiled part ends before it."""
    torch.manual_seed(0)
    norm, mask = layer(6, training), torch.tensor([1.0, 0, 1, 1, 0, 1])[:, None, None]
    x, skip, dy = (channels_last(4, 6, 5, 5) for _ in range(3))
    found = []
    for module, dtype in (norm, torch.float32), (copy.deepcopy(norm).double(), torch.float64):
        act = nn.ReLU(inplace=True)
        act.register_forward_hook(lambda module, inputs, output: output * mask)
        inputs = [values.to(dtype).requires_grad_() for values in (x, skip)[: 1 + skipped]]
        y = normalise_relu(module, act, *inputs)
        wanted = [*inputs, module.weight, module.bias]
        found.append([y.detach(), *torch.autograd.grad(y, wanted, dy.to(dtype))])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-4)


def test_another_activation_is_taken_as_it_is():
    x, norm = channels_last(2, 3, 4, 4), layer(3)
    wanted = nn.functional.elu(copy.deepcopy(norm)(x) + x)
    torch.testing.assert_close(normalise_relu(norm, nn.ELU(), x, x), wanted)


def test_a_skip_connection_that_has_to_be_broadcast_is():
    x, norm = channels_last(2, 3, 4, 4), layer(3)
    skip = torch.ones(1, 3, 1, 1)
    assert torch.equal(normalise_relu(norm, nn.ReLU(), x, skip), (copy.deepcopy(norm)(x) + 1).relu())


def taken(norm, x):
    name = normalise(norm, x.requires_grad_()).grad_fn.name()
    assert ("_Norm" in name) != ("NativeBatchNorm" in name)
    return "_Norm" in name


def test_what_is_not_a_channels_last_cpu_image_in_single_precision_is_left_to_torch():
    assert taken(layer(3), channels_last(2, 3, 4, 4))
    assert not taken(layer(3), channels_last(2, 3, 4, 4).contiguous())
    assert not taken(layer(3).double(), channels_last(2, 3, 4, 4, dtype=torch.float64))
    assert not taken(nn.BatchNorm2d(3, momentum=None), channels_last(2, 3, 4, 4))
    assert not taken(nn.BatchNorm2d(3, track_running_stats=False), channels_last(2, 3, 4, 4))


def test_a_single_value_a_channel_is_refused_as_in_torch():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        normalise(layer(3), torch.ones(1, 3, 1, 1))


def forget():
    batch_norm._library.cache_clear()
    native.accelerator.cache_clear()


def test_without_a_compiler_torch_does_it_and_a_warning_says_so_once(monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    forget()
    try:
        with caplog.at_level(logging.WARNING):
            assert not taken(layer(3), channels_last(2, 3, 4, 4))
            assert not taken(layer(3), channels_last(2, 3, 4, 4))
        (record,) = caplog.records
        assert "no-such-compiler" in record.getMessage() and "slower" in record.getMessage()
        norm, rows = layer(5), torch.tensor([4, 1, 2])
        mine, theirs = both(norm, channels_last(2, 3, 4, 4), channels_last(2, 3, 4, 4), None, False, rows)
        for one, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-5)
    finally:
        forget()


@pytest.mark.parametrize("instructions", native.LEVELS)
def test_compiles_for_every_instruction_set(instructions, tmp_path, monkeypatch):
    monkeypatch.setenv("GRANPRUNE_CACHE", str(tmp_path))
    assert native.build(batch_norm.SOURCE, instructions, ("-fopenmp",)).exists()
