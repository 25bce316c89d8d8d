"""Compared with PyTorch in float64, which takes another way through the numbers."""

import copy
import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from granprune import convolution, native
from granprune.conv_norm import conv_norm, conv_norm_relu
from granprune.convolution import Normalisation, find
from granprune.granularity import Weights
from granprune.masking import MaskedModel
from granprune.models import ResNet20
from granprune.native import level

COMPILED = level() == "AVX512"  # elsewhere PyTorch's convolution is taken, and has to pass the same tests
NATIVE_BFLOAT16 = COMPILED and torch.cpu._is_avx512_bf16_supported()


def channels_last(*shape, dtype=torch.float32):
    return torch.randn(*shape).to(dtype).contiguous(memory_format=torch.channels_last)


def layers(inputs, outputs, kernel=3, stride=1, training=True):
    """A convolution, and a normalisation far from its beginning."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    norm = nn.BatchNorm2d(outputs, momentum=0.25)
    for values in norm.weight, norm.bias, norm.running_mean, norm.running_var:
        nn.init.uniform_(values, 0.5, 1.5)
    return conv.to(memory_format=torch.channels_last), norm.train(training)


def results(conv, norm, x, dy, skip, relu, exact):
    """Output, gradients of all inputs, running statistics; exactly: by PyTorch, in float64."""
    if exact:
        conv, norm, x, dy = (copy.deepcopy(value).double() for value in (conv, norm, x, dy))
        skip = None if skip is None else skip.double()
    x = x.clone(memory_format=torch.channels_last).requires_grad_()
    skip = None if skip is None else skip.clone(memory_format=torch.channels_last).requires_grad_()
    if exact:
        y = norm(conv(x))
        y = y if skip is None else y + skip
        y = y.relu() if relu else y
    elif relu:
        y = conv_norm_relu(conv, norm, nn.ReLU(inplace=True), x, skip)
    else:
        y = conv_norm(conv, norm, x)
    inputs = [x, conv.weight, norm.weight, norm.bias, *([] if skip is None else [skip])]
    found = torch.autograd.grad(y, inputs, dy.to(y.dtype))
    assert norm.num_batches_tracked == norm.training
    return [y.detach(), *found, norm.running_mean, norm.running_var]


def compare(conv, norm, x, skip, relu, tolerance):
    y = copy.deepcopy(norm).double()(copy.deepcopy(conv).double()(x.double()))
    y = y if skip is None else y + skip
    dy = torch.randn_like(y) * (
        y.abs() > 10 * tolerance
    )  # where rounding moves nothing across the ReLU's kink
    dy = dy.to(x.dtype).contiguous(memory_format=torch.channels_last)
    theirs = results(conv, copy.deepcopy(norm), x, dy, skip, relu, exact=True)
    mine = results(conv, norm, x, dy, skip, relu, exact=False)
    for one, other in zip(mine, theirs, strict=True):
        scale = float(other.abs().max()) or 1.0
        torch.testing.assert_close(one.double(), other, rtol=0, atol=tolerance * scale)


@given(
    batch=st.integers(1, 40),
    inputs=st.integers(1, 64),
    outputs=st.integers(1, 64),
    size=st.sampled_from([(4, 8), (8, 4), (8, 8), (2, 16), (6, 16), (16, 2), (10, 32)]),
    relu=st.booleans(),
    skipped=st.booleans(),
    training=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_any_number_of_channels(batch, inputs, outputs, size, relu, skipped, training, seed):
    torch.manual_seed(seed)
    conv, norm = layers(inputs, outputs, training=training)
    x = channels_last(batch, inputs, *size)
    assert (find(conv, x) is not None) == COMPILED
    skip = channels_last(batch, outputs, *size) if relu and skipped else None
    compare(conv, norm, x, skip, relu, 1e-4)


@given(
    batch=st.integers(1, 20),
    inputs=st.sampled_from([16, 32, 64]),
    outputs=st.sampled_from([16, 32, 64]),
    form=st.sampled_from([(3, 2), (1, 1), (1, 2), (3, 1)]),
    width=st.sampled_from([16, 32, 64]),
    height=st.integers(1, 5),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    relu=st.booleans(),
    skipped=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_every_form(batch, inputs, outputs, form, width, height, dtype, relu, skipped, seed):
    torch.manual_seed(seed)
    (kernel, stride), half = form, dtype == torch.bfloat16
    conv, norm = layers(inputs, outputs, kernel, stride)
    conv.weight.data = conv.weight.bfloat16().float()
    norm.eps = 0.1  # one row of few images has channels that hardly vary
    width, height = width * stride, 2 * height
    x = channels_last(batch, inputs, height, width, dtype=dtype)
    skip = channels_last(batch, outputs, height // stride, width // stride, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        assert (find(conv, x) is not None) == (NATIVE_BFLOAT16 if half else COMPILED)
        compare(conv, norm, x, skip if relu and skipped else None, relu, 3e-2 if half else 1e-4)


def test_narrow_images_of_many_channels_in_bfloat16():
    torch.manual_seed(0)
    for kernel, stride in (3, 1), (3, 2), (1, 2):
        conv, norm = layers(32, 64, kernel, stride)
        conv.weight.data = conv.weight.bfloat16().float()
        x = channels_last(5, 32, 8 * stride, 8 * stride, dtype=torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            assert (find(conv, x) is not None) == NATIVE_BFLOAT16
            compare(conv, norm, x, None, True, 3e-2)


def test_one_tap_by_hand():
    """A kernel with a single one at its upper left moves the image down and to the right, and doubles it."""
    conv, norm = layers(1, 1)
    conv.weight.data.zero_()
    conv.weight.data[0, 0, 0, 0] = 2
    nn.init.ones_(norm.weight), nn.init.zeros_(norm.bias)
    nn.init.zeros_(norm.running_mean), nn.init.ones_(norm.running_var)
    norm.eps = 0.0
    x = torch.arange(32.0).view(1, 1, 4, 8).contiguous(memory_format=torch.channels_last)
    moved = F.pad(2 * x, (1, 0, 1, 0))[:, :, :-1, :-1]
    assert torch.equal(conv_norm(conv, norm.eval(), x), moved)


def test_autocasting_takes_images_in_float32_and_gives_bfloat16():
    conv, norm = layers(16, 16)
    x = channels_last(2, 16, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        y = conv_norm(conv, norm, x)
        assert torch.equal(y, conv_norm(conv, norm, x.bfloat16()))
    assert y.dtype == torch.bfloat16


@pytest.mark.parametrize("mean", [300.0, -3000.0])
def test_statistics_of_outputs_far_from_zero(mean):
    """As float64 finds them in the outputs, although the squares of these are 10^5 times the variance."""
    torch.manual_seed(0)
    conv, norm = layers(3, 5)
    x = channels_last(7, 3, 16, 16) + mean
    before = copy.deepcopy(norm)
    conv_norm(conv, norm, x)
    outputs = conv(x).double()
    wanted = copy.deepcopy(before).double()
    wanted(outputs)
    torch.testing.assert_close(norm.running_mean.double(), wanted.running_mean, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(norm.running_var.double(), wanted.running_var, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not COMPILED, reason="PyTorch's own results depend on the threads")
@pytest.mark.parametrize("kernel, stride, channels", [(3, 1, 7), (3, 1, 16), (3, 2, 16), (1, 2, 32)])
def test_results_do_not_depend_on_the_number_of_threads(kernel, stride, channels):
    torch.manual_seed(0)
    conv, _ = layers(channels, channels, kernel, stride)
    x, weight = channels_last(37, channels, 32, 32), conv.weight.detach()
    (compiled, _), found, threads = find(conv, x), [], torch.get_num_threads()
    dy = channels_last(37, channels, 32 // stride, 32 // stride)
    lines = torch.randn(4, channels)
    try:
        for count in 1, 2, 3:
            torch.set_num_threads(count)
            mean = torch.empty(channels)
            y, variance = compiled.forward(x, weight, mean)
            gradients = compiled.backward(x, weight, Normalisation(y, dy, lines, True), (True, True))
            found.append([y, mean, variance, *gradients])
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_weights_may_lie_in_any_order(order):
    torch.manual_seed(0)
    conv, norm = layers(16, 32)
    conv.weight.data = conv.weight.data.contiguous(memory_format=order)
    compare(conv, norm, channels_last(3, 16, 16, 16), None, True, 1e-4)


@pytest.mark.parametrize("frozen", ["images", "weights", "normalisation"])
def test_gradients_that_nobody_wants_are_not_computed(frozen):
    torch.manual_seed(0)
    conv, norm = layers(16, 16)
    x = channels_last(3, 16, 16, 16)
    leaves = {"images": [x], "weights": [conv.weight], "normalisation": [norm.weight, norm.bias]}
    for name, values in leaves.items():
        for value in values:
            value.requires_grad_(name != frozen)
    wanted = [value for values in leaves.values() for value in values if value.requires_grad]
    dy = channels_last(3, 16, 16, 16)
    mine = torch.autograd.grad(conv_norm(conv, norm, x), wanted, dy)
    theirs = torch.autograd.grad(norm(conv(x)), wanted, dy)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("skipped", [True, False])
def test_can_be_differentiated_twice(training, skipped):
    """The gradient of a square of gradients, as GraSP needs it."""
    torch.manual_seed(0)
    conv, norm = layers(16, 16, training=training)
    x, skip, dy = (channels_last(3, 16, 16, 16) for _ in range(3))
    found = []
    for dtype in torch.float32, torch.float64:
        first, second = copy.deepcopy(conv).to(dtype), copy.deepcopy(norm).to(dtype)
        inputs = [values.to(dtype).detach().requires_grad_() for values in (x, skip)[: 1 + skipped]]
        wanted = [*inputs, first.weight, second.weight, second.bias]
        y = conv_norm_relu(first, second, nn.ReLU(), inputs[0], *inputs[1:])
        gradients = torch.autograd.grad((y**3 * dy).sum(), wanted, create_graph=True)
        flow = sum(gradient.square().mean() for gradient in gradients)
        found.append([g.detach() for g in (*gradients, *torch.autograd.grad(flow, wanted))])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


@pytest.mark.parametrize(
    "how", ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"]
)
def test_a_convolution_that_someone_listens_to_runs_itself(how):
    (conv, norm), seen = layers(16, 16), []
    getattr(conv, how)(lambda module, *rest: seen.append(type(module)))
    conv_norm(conv, norm, channels_last(2, 16, 16, 16).requires_grad_()).sum().backward()
    assert seen == [nn.Conv2d]


class Doubled(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "conv, x",
    [
        (nn.Conv2d(16, 16, 3, padding=1), channels_last(2, 16, 16, 16)),  # a bias
        (nn.Conv2d(16, 16, 3, padding=1, bias=False, groups=2), channels_last(2, 16, 16, 16)),
        (nn.Conv2d(16, 16, 3, padding=2, bias=False, dilation=2), channels_last(2, 16, 16, 16)),
        (nn.Conv2d(16, 16, 3, bias=False), channels_last(2, 16, 16, 16)),
        (nn.Conv2d(16, 16, 3, (1, 2), 1, bias=False), channels_last(2, 16, 16, 16)),
        (nn.Conv2d(16, 16, 3, padding="same", bias=False), channels_last(2, 16, 16, 16)),
        (nn.Conv2d(16, 16, 3, padding=1, padding_mode="circular", bias=False), channels_last(2, 16, 16, 16)),
        (nn.Conv2d(16, 16, 5, padding=2, bias=False), channels_last(2, 16, 16, 16)),
        (nn.Conv2d(65, 16, 3, padding=1, bias=False), channels_last(2, 65, 16, 16)),
        (nn.Conv2d(16, 16, 3, padding=1, bias=False), channels_last(2, 16, 7, 16)),
        (nn.Conv2d(16, 16, 3, padding=1, bias=False), channels_last(2, 16, 6, 6)),
        (nn.Conv2d(15, 16, 3, 2, 1, bias=False), channels_last(2, 15, 32, 32)),
        (nn.Conv2d(16, 16, 3, 2, 1, bias=False), channels_last(2, 16, 16, 16)),  # 8 outputs of 16 channels
        (nn.Conv2d(16, 16, 3, padding=1, bias=False), channels_last(2, 16, 16, 16).contiguous()),
        (nn.Conv2d(16, 16, 3, padding=1, bias=False).double(), channels_last(2, 16, 16, 16).double()),
        (nn.Conv2d(16, 16, 3, padding=1, bias=False).bfloat16(), channels_last(2, 16, 16, 16).bfloat16()),
        (Doubled(16, 16, 3, padding=1, bias=False), channels_last(2, 16, 16, 16)),
    ],
)
def test_what_it_cannot_do_is_left_to_torch(conv, x):
    assert find(conv, x) is None
    norm = nn.BatchNorm2d(16).to(x.dtype)
    torch.testing.assert_close(conv_norm(conv, norm, x), copy.deepcopy(norm)(conv(x)), rtol=1e-2, atol=1e-2)


def test_an_empty_batch_is_left_to_torch():
    conv, norm = layers(16, 16, training=False)
    x = channels_last(0, 16, 16, 16)
    assert find(conv, x) is None and conv_norm(conv, norm, x).shape == x.shape


def test_a_skip_connection_that_has_to_be_broadcast_is():
    conv, norm = layers(16, 16)
    x, skip = channels_last(2, 16, 16, 16), torch.ones(1, 16, 1, 1)
    wanted = (copy.deepcopy(norm)(conv(x)) + 1).relu()
    torch.testing.assert_close(conv_norm_relu(conv, norm, nn.ReLU(), x, skip), wanted, rtol=1e-4, atol=1e-4)


class Counting(nn.Module):
    """Counts how often a masked weight is computed."""

    times = 0

    def forward(self, weight):
        self.times += 1
        return weight * 1


@pytest.mark.skipif(not COMPILED, reason="PyTorch's convolution asks for it")
def test_a_masked_weight_is_computed_once():
    conv, norm = layers(16, 16)
    nn.utils.parametrize.register_parametrization(conv, "weight", Counting(), unsafe=True)
    counting = conv.parametrizations.weight[0]
    counting.times = 0
    conv_norm(conv, norm, channels_last(2, 16, 16, 16))
    assert counting.times == 1


def test_masked_weights_get_masked_gradients():
    torch.manual_seed(0)
    model = MaskedModel(ResNet20(width=16), Weights()).to(memory_format=torch.channels_last)
    model.set_masks({name: torch.rand(mask.shape) < 0.3 for name, mask in model.masks.items()})
    model(channels_last(2, 3, 32, 32)).sum().backward()
    for name, mask in model.weight_masks().items():
        gradient = model.weights()[name].grad
        assert not gradient[~mask].any() and gradient[mask].any()


def forget():
    convolution._library.cache_clear()
    native.accelerator.cache_clear()


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled")
def test_without_a_compiler_torch_does_it_and_a_warning_says_so_once(monkeypatch, caplog):
    conv, norm = layers(16, 16)
    x = channels_last(3, 16, 16, 16)
    wanted = conv_norm(conv, copy.deepcopy(norm), x)
    monkeypatch.setenv("CXX", "no-such-compiler")
    forget()
    try:
        with caplog.at_level(logging.WARNING):
            assert find(conv, x) is None and find(conv, x) is None
        (record,) = caplog.records
        assert "no-such-compiler" in record.getMessage() and "convolution.cpp" in record.getMessage()
        torch.testing.assert_close(conv_norm(conv, norm, x), wanted, rtol=1e-4, atol=1e-4)
    finally:
        forget()
