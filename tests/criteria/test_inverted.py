import pytest
import torch

from granprune.criteria import Inverted, Magnitude, Random, Statistical
from granprune.errors import UserError
from granprune.granularity import Weights
from granprune.masking import MaskedModel
from granprune.pruning import prune


def test_scores_are_negated(convnet):
    model = MaskedModel(convnet, Weights())
    plain = Random()(model, [], torch.Generator().manual_seed(3))
    inverted = Inverted(Random())(model, [], torch.Generator().manual_seed(3))
    assert inverted.keys() == plain.keys()
    assert all(torch.equal(inverted[name], -plain[name]) for name in plain)


def test_the_best_components_go_first_and_pruned_ones_stay_pruned(mlp):
    model = MaskedModel(mlp, Weights())
    with torch.no_grad():
        mlp.head.parametrizations.weight.original.copy_(torch.tensor([[1.0, -6.0, 3.0], [-4.0, 5.0, 2.0]]))
    rule = Inverted(Magnitude())
    kept = []
    for density in (2 / 3, 1 / 3):
        model.set_masks(prune(model.masks, rule(model, [], torch.Generator()), [(["head"], density)]))
        kept.append(model.masks["head"].int().tolist())
    assert kept == [[[1, 0, 1], [1, 0, 1]], [[1, 0, 0], [0, 0, 1]]]


def test_the_inner_criterion_checks_the_network(convnet):
    with pytest.raises(UserError, match="Statistical cannot score granularity Weights"):
        Inverted(Statistical()).check(MaskedModel(convnet, Weights()))
