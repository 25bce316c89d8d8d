import math

import pytest
import torch

from granprune.granularity import Nodes, Weights
from granprune.masking import MaskedModel
from granprune.models import DBSN

COMPONENTS = {
    Weights: [1_960_000, 5_000_000, 3_000_000, 1_500_000, 500_000, 5_000],
    Nodes: [2500, 2000, 1500, 1000, 500],
}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return DBSN()


@pytest.mark.parametrize("granularity, total", [(Weights, 11_965_000), (Nodes, 7_500)])
def test_components(granularity, total):
    masks = MaskedModel(DBSN(), granularity()).masks
    assert [mask.numel() for mask in masks.values()] == COMPONENTS[granularity]
    assert sum(mask.numel() for mask in masks.values()) == total


def test_trainable_parameters(network):
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 11_972_510


def test_initialization(network):
    for linear in [*network.hidden, network.head]:
        assert (linear.bias == 0).all()
        assert 0.049 < linear.weight.abs().max() <= 0.05
        assert linear.weight.std().item() == pytest.approx(0.05 / math.sqrt(3), rel=0.05)  # of a uniform


def test_forward_written_out():
    torch.manual_seed(0)
    network = DBSN(num_classes=3, widths=(5, 4), in_features=6)
    x = torch.randn(2, 1, 2, 3)
    y = x.flatten(1)
    for linear in network.hidden:
        y = 1.7159 * torch.tanh(0.6666 * (y @ linear.weight.T + linear.bias))
    torch.testing.assert_close(network(x), y @ network.head.weight.T + network.head.bias)


def test_layers_are_gated_before_and_observed_after_the_tanh():
    layers = DBSN(widths=(5, 4), in_features=6).prunable_layers()
    assert [(x.name, x.gate, x.activation, x.role) for x in layers] == [
        ("hidden.0", "hidden.0", "act.0", "hidden"),
        ("hidden.1", "hidden.1", "act.1", "hidden"),
        ("head", None, None, "head"),
    ]
