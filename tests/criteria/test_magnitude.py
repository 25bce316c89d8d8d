import pytest
import torch
from torch import nn

from granprune.criteria import Magnitude
from granprune.granularity import Channels, Kernels, Nodes, Weights
from granprune.masking import MaskedModel

CASES = [(Weights, "convnet"), (Kernels, "convnet"), (Channels, "convnet"), (Weights, "mlp"), (Nodes, "mlp")]


def scores(model):
    return Magnitude()(model, [], torch.Generator())


def by_hand(granularity, weight):
    if granularity is Weights:
        return weight.abs()
    if granularity is Kernels:
        rows = [[kernel.abs().sum() / kernel.numel() for kernel in filters] for filters in weight]
        return torch.tensor(rows, dtype=weight.dtype)[:, :, None, None]
    means = torch.tensor([row.abs().sum() / row.numel() for row in weight], dtype=weight.dtype)
    return means[:, None, None] if granularity is Channels else means


@pytest.mark.parametrize("granularity, network", CASES)
def test_mean_absolute_weight(granularity, network, request):
    network = request.getfixturevalue(network)
    model = MaskedModel(network, granularity())
    found = scores(model)
    assert found.keys() == model.masks.keys()
    for name, weight in model.weights().items():
        assert found[name].shape == model.masks[name].shape and not found[name].requires_grad
        torch.testing.assert_close(found[name], by_hand(granularity, weight.detach()))


@pytest.mark.parametrize("granularity, network", CASES)
def test_scores_follow_the_weights_when_these_move(granularity, network, request):
    network = request.getfixturevalue(network)
    model = MaskedModel(network, granularity())
    before = scores(model)
    model.to(torch.float64)  # new storage, as a move to a GPU has
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    for name, score in scores(model).items():
        assert score.dtype == torch.float64
        torch.testing.assert_close(score, 3 * before[name].double())


@pytest.mark.parametrize("granularity", [Weights, Kernels, Channels])
def test_raw_weights_count_also_where_masked(granularity, convnet):
    model = MaskedModel(convnet, granularity())
    before = scores(model)
    for mask in model.masks.values():
        mask.zero_()
    assert all(torch.equal(score, before[name]) for name, score in scores(model).items())


def test_nothing_but_the_incoming_weight_counts(convnet):
    model = MaskedModel(convnet, Channels())
    before = scores(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.mul_(100)
        if getattr(module, "bias", None) is not None:
            module.bias.data.add_(100)
    assert all(torch.equal(score, before[name]) for name, score in scores(model).items())
