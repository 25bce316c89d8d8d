import numpy as np
import pytest
import torch
from torch import nn

from granprune.deploy.layers import IMAGE, Layer, layers_of, trim
from granprune.deploy.packed import Packed
from granprune.errors import UserError
from granprune.granularity import Channels, Nodes, Weights
from granprune.masking import MaskedModel
from granprune.models import DBSN, Prunable, PrunableLayer, ResNet20


def layer(weight, source, **options):
    weight = np.array(weight, np.float32)[:, :, None, None]
    return Layer(Packed.of(weight), np.zeros(len(weight), np.float32), source, **options)


def test_outputs_that_nobody_reads_are_dead_back_to_the_input():
    layers = trim(
        [
            layer([[1], [1], [1]], IMAGE),
            layer([[1, 0, 0], [0, 1, 0]], 0),  # nobody reads output 2 of the first layer
            layer([[0, 5]], 1),  # nobody reads output 0 of the second, so output 0 of the first is dead too
        ]
    )
    assert layers[0].alive.tolist() == [False, True, False]
    assert layers[1].alive.tolist() == [False, True]
    assert layers[2].alive is None


def test_weights_that_read_a_pruned_output_are_dropped():
    first = layer([[1], [1]], IMAGE, alive=np.array([True, False]))
    layers = trim([first, layer([[3, 4]], 0)])
    assert layers[1].weight.dense().flatten().tolist() == [3, 0]


def test_a_residual_keeps_what_it_adds_alive():
    layers = trim(
        [
            layer([[1], [1]], IMAGE),
            layer([[0, 0], [0, 0]], 0, residual=0),
            layer([[1, 0]], 1),
        ]
    )
    assert layers[0].alive.tolist() == [True, False]


def test_batch_normalisation_is_folded_by_hand():
    network = ResNet20(width=1)
    network.conv.weight.data.fill_(2)
    norm = network.bn
    for tensor, value in (norm.weight.data, 3), (norm.bias.data, 5), (norm.running_mean, 7):
        tensor.fill_(value)
    norm.running_var.fill_(4 - norm.eps)
    stem = layers_of(MaskedModel(network, Weights()))[0]
    assert stem.weight.dense().flatten().tolist() == pytest.approx([2 * 3 / 2] * 27)
    assert stem.bias.tolist() == pytest.approx([5 - 7 * 3 / 2])


def test_order_and_sources_of_resnet():
    layers = layers_of(MaskedModel(ResNet20(width=2), Channels()))
    assert len(layers) == 1 + 9 * 2 + 2 + 1
    assert [layer.residual for layer in layers[:5]] == [None, None, 0, None, 2]
    shortcut, first, second = layers[7:10]
    assert (shortcut.source, shortcut.stride, first.source, first.stride) == (6, 2, 6, 2)
    assert (second.source, second.residual, second.stride) == (8, 7, 1)
    assert layers[-1].pooled


def test_masked_nodes_are_dead():
    model = MaskedModel(DBSN(widths=(3, 2), in_features=2), Nodes())
    model.set_masks({"hidden.0": torch.tensor([1, 0, 1]), "hidden.1": torch.tensor([0, 1])})
    layers = layers_of(model)
    assert layers[0].alive.tolist() == [True, False, True]
    assert layers[1].alive.tolist() == [False, True]


def test_other_networks_are_refused():
    class Other(Prunable):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def prunable_layers(self):
            return [PrunableLayer("linear")]

    with pytest.raises(UserError, match="cannot deploy Other: possible are ResNet20 and DBSN"):
        layers_of(MaskedModel(Other(), Weights()))
