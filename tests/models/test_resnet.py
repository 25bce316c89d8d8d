import pytest
import torch
from torch import nn

from granprune.granularity import Channels, Kernels, Weights
from granprune.masking import MaskedModel
from granprune.models import ResNet20
from granprune.models.resnet import Shortcut

COMPONENTS = {
    Weights: [432] + 6 * [2_304] + [4_608] + 5 * [9_216] + [18_432] + 5 * [36_864],
    Kernels: [48] + 6 * [256] + [512] + 5 * [1_024] + [2_048] + 5 * [4_096],
    Channels: 7 * [16] + 6 * [32] + 6 * [64],
}
TOTALS = {Weights: 267_696, Kernels: 29_744, Channels: 688}


@pytest.mark.parametrize("granularity", COMPONENTS)
def test_components(granularity):
    masks = MaskedModel(ResNet20(), granularity()).masks
    assert [mask.numel() for mask in masks.values()] == COMPONENTS[granularity]
    assert sum(COMPONENTS[granularity]) == TOTALS[granularity]


@pytest.mark.parametrize("num_classes, parameters", [(10, 272_474), (100, 278_324)])
def test_trainable_parameters(num_classes, parameters):
    network = ResNet20(num_classes)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == parameters


def test_layers_roles_and_gates():
    layers = ResNet20(width=2).prunable_layers()
    assert [layer.role for layer in layers] == ["stem"] + 9 * ["inner", "outer"]
    assert [layer.name for layer in layers[:3]] == ["conv", "blocks.0.conv1", "blocks.0.conv2"]
    assert [layer.gate for layer in layers[:3]] == ["act", "blocks.0.act1", "blocks.0.act2"]
    assert all(layer.activation == layer.gate for layer in layers)


def test_shapes_of_the_stages():
    model = MaskedModel(ResNet20(), Weights()).eval()
    with model.observe() as activations, torch.no_grad():
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    shapes = [tuple(x.shape[1:]) for x in activations.values()]
    assert shapes == 7 * [(16, 32, 32)] + 6 * [(32, 16, 16)] + 6 * [(64, 8, 8)]


def test_a_block_written_out():
    torch.manual_seed(0)
    network = ResNet20(width=2).eval()
    block = network.blocks[3]  # the first with stride 2 and a shortcut
    x = torch.randn(2, 2, 8, 8)
    y = torch.relu(block.bn1(nn.functional.conv2d(x, block.conv1.weight, stride=2, padding=1)))
    y = block.bn2(nn.functional.conv2d(y, block.conv2.weight, padding=1))
    skip = block.shortcut[1](nn.functional.conv2d(x, block.shortcut[0].weight, stride=2))
    torch.testing.assert_close(block(x), torch.relu(y + skip))


def test_initialization_is_xavier_normal_and_seeded():
    torch.manual_seed(3)
    network = ResNet20()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(module.weight)
            wanted = (2 / (fan_in + fan_out)) ** 0.5
            assert module.weight.std().item() == pytest.approx(wanted, rel=5 / module.weight.numel() ** 0.5)
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all()
    torch.manual_seed(3)
    again = ResNet20().state_dict()
    assert all(torch.equal(value, again[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("inputs", [1, 4, 6, 8, 15, 16])
def test_gradients_of_narrow_shortcuts(inputs):
    """Against the product of pixels that a stride of two reads, in double precision.

    With channels last and fewer inputs than a vector's lanes, oneDNN's own strided ones are wrong or crash.
    """
    shortcut = Shortcut(inputs, 2 * inputs, 2)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(32, inputs, 32, 32, generator=generator)
        x = x.to(memory_format=torch.channels_last).requires_grad_()
        y = shortcut(x)
        upstream = torch.randn(y.shape, generator=generator)
        (gradient,) = torch.autograd.grad(y, shortcut.weight, upstream)
        read = x.detach()[:, :, ::2, ::2].double()
        wanted = torch.einsum("bohw,bihw->oi", upstream.double(), read)
        assert torch.allclose(gradient[:, :, 0, 0].double(), wanted, rtol=1e-4, atol=1e-3)
        with torch.no_grad():
            assert torch.allclose(shortcut(x), y, atol=1e-5)
