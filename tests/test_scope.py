import pytest
import torch

from granprune.granularity import Kernels, Nodes, Weights
from granprune.masking import MaskedModel
from granprune.models import ResNet20
from granprune.run import checkpoint
from granprune.scope import ByRole, Global, LayerMatched, Layerwise


@pytest.fixture
def model(convnet):
    return MaskedModel(convnet, Weights())


@pytest.mark.parametrize(
    "scope, groups",
    [
        (Global(), [(["stem", "conv1", "conv2"], 0.25)]),
        (Layerwise(), [(["stem"], 0.25), (["conv1"], 0.25), (["conv2"], 0.25)]),
        (ByRole(), [(["stem"], 0.25), (["conv1"], 0.25), (["conv2"], 0.25)]),
    ],
    ids=["global", "layerwise", "by role"],
)
def test_groups(scope, groups, model):
    assert scope.groups(model, 0.25) == groups


def test_roles_of_a_residual_network_are_the_papers_residual_types():
    model = MaskedModel(ResNet20(width=2), Kernels())
    names = list(model.layers)
    assert ByRole().groups(model, 0.5) == [(names[:1], 0.5), (names[1::2], 0.5), (names[2::2], 0.5)]


def test_only_masked_layers_are_ranked(mlp):
    assert Global().groups(MaskedModel(mlp, Nodes()), 0.5) == [(["hidden"], 0.5)]


def test_layer_matched_takes_each_density_from_the_other_run(model, monkeypatch):
    other = {name: torch.zeros_like(mask) for name, mask in model.masks.items()}
    other["stem"].view(-1)[:18] = True  # of 72
    other["conv2"][:] = True
    asked = []
    monkeypatch.setattr(checkpoint, "load_masks", lambda run, like: asked.append((run, like)) or other)
    groups = LayerMatched("runs/other").groups(model, 0.9)
    assert groups == [(["stem"], 0.25), (["conv1"], 0.0), (["conv2"], 1.0)]
    assert asked[0][0] == "runs/other" and asked[0][1].keys() == model.masks.keys()
