import pytest
import torch
from torch import nn

from granprune.granularity import Channels, Kernels, Nodes, Weights
from granprune.masking import MaskedModel
from granprune.models import PrunableLayer

GATED = PrunableLayer("x", gate="x")
UNGATED = PrunableLayer("x")
CONV, LINEAR, NORM = nn.Conv2d(2, 3, 3), nn.Linear(4, 5), nn.BatchNorm2d(3)


@pytest.mark.parametrize(
    "granularity, weight, mask",
    [
        (Weights(), (4, 3, 5, 5), (4, 3, 5, 5)),
        (Weights(), (4, 3), (4, 3)),
        (Kernels(), (4, 3, 5, 5), (4, 3, 1, 1)),
        (Channels(), (4, 3, 5, 5), (4, 1, 1)),
        (Nodes(), (4, 3), (4,)),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, tuple) else None,
)
def test_mask_shapes_with_and_without_a_batch(granularity, weight, mask):
    assert granularity.total(torch.zeros(weight)).shape == mask
    assert granularity.total(torch.zeros(7, *weight)).shape == (7, *mask)


def test_totals_and_means_of_an_integer_weight():
    weight = torch.arange(24.0).view(2, 3, 2, 2)
    assert Kernels().total(weight).flatten().tolist() == [6, 22, 38, 54, 70, 86]
    assert Kernels().mean(weight).flatten().tolist() == [1.5, 5.5, 9.5, 13.5, 17.5, 21.5]
    assert Channels().total(weight).flatten().tolist() == [66, 210]
    assert Channels().mean(weight).flatten().tolist() == [5.5, 17.5]
    assert torch.equal(Weights().mean(weight), weight)
    assert Nodes().mean(torch.tensor([[1.0, 3.0], [5.0, 6.0]])).tolist() == [2, 5.5]


@pytest.mark.parametrize(
    "granularity, module, layer, applies",
    [
        (Weights(), CONV, UNGATED, True),
        (Weights(), LINEAR, UNGATED, True),
        (Weights(), NORM, GATED, False),
        (Kernels(), CONV, UNGATED, True),
        (Kernels(), LINEAR, GATED, False),
        (Channels(), CONV, GATED, True),
        (Channels(), CONV, UNGATED, False),
        (Channels(), LINEAR, GATED, False),
        (Nodes(), LINEAR, GATED, True),
        (Nodes(), LINEAR, UNGATED, False),
        (Nodes(), CONV, GATED, False),
    ],
)
def test_what_each_granularity_applies_to(granularity, module, layer, applies):
    assert granularity.applies(module, layer) is applies


def test_grouped_convolutions_have_the_kernels_that_exist(convnet):
    model = MaskedModel(convnet, Kernels())
    assert {name: tuple(mask.shape) for name, mask in model.masks.items()} == {
        "stem": (4, 2, 1, 1),
        "conv1": (6, 2, 1, 1),  # 4 inputs in 2 groups
        "conv2": (4, 6, 1, 1),
    }
