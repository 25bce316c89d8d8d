import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from granprune.criteria import Statistical
from granprune.errors import UserError
from granprune.granularity import Channels, Kernels, Nodes, Weights
from granprune.masking import MaskedModel
from granprune.models import Traced


class Functional(nn.Module):
    """A residual network of functions, whose only activation module runs twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(4, 6, 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(6)
        self.skip = nn.Conv2d(4, 6, 1, 2)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(6, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.skip(x)
        x = self.relu(y).mean((2, 3))
        return self.head(F.relu(self.drop(self.fc(x))))

    def masked(self, x, m):
        """The same in evaluation mode, with the masks of units written out."""
        x = torch.tanh(self.stem(x)) * m["stem"]
        y = F.relu(self.bn1(self.conv1(x))) * m["conv1"]
        x = (F.relu(self.bn2(self.conv2(y)) + self.skip(x)) * m["conv2"]).mean((2, 3))
        return self.head(F.relu(self.fc(x)) * m["fc"])


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = Functional()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias), nn.init.uniform_(module.running_mean)
    nn.init.ones_(network.fc.bias)  # no unit is off whatever the image
    return network.eval()


@pytest.fixture
def images():
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_layers_gates_and_roles(network):
    layers = {layer.name.removeprefix("network."): layer for layer in Traced(network).prunable_layers()}
    assert {name: layer.role for name, layer in layers.items()} == {
        "stem": "stem",
        "conv1": "inner",
        "conv2": "outer",
        "skip": "shortcut",
        "fc": "inner",
        "head": "head",
    }
    assert [name for name, layer in layers.items() if layer.gate is None] == ["skip", "head"]
    norms = {name: layer.norm for name, layer in layers.items() if layer.norm}
    assert norms == {"conv1": "network.bn1", "conv2": "network.bn2"}
    assert list(layers) == ["stem", "conv1", "conv2", "skip", "fc", "head"]


def test_the_traced_network_computes_what_the_network_does(network, images):
    traced = Traced(copy.deepcopy(network))
    assert torch.equal(traced.eval()(images), network(images))
    for module in (traced, network):
        torch.manual_seed(3)
        module.train()
    assert traced.network.drop.training
    torch.manual_seed(3)
    found = traced(images)
    torch.manual_seed(3)
    assert torch.equal(found, network(images))


def test_unit_masks_act_after_normalisation_addition_and_activation(network, images):
    plain = copy.deepcopy(network)
    ones = {"stem": torch.ones(4, 1, 1), "conv1": torch.ones(6, 1, 1), "conv2": torch.ones(6, 1, 1)}
    for granularity in (Channels(), Nodes()):
        masks = ones | {"fc": torch.ones(5)}
        model = MaskedModel(Traced(copy.deepcopy(network)), granularity).eval()
        for index, (name, mask) in enumerate(model.masks.items()):
            mask[index % len(mask)] = False
            masks[name.removeprefix("network.")] = mask.float()
        torch.testing.assert_close(model(images), plain.masked(images, masks))
        names = {"network.stem", "network.conv1", "network.conv2"}
        assert set(model.masks) == (names if isinstance(granularity, Channels) else {"network.fc"})
        assert (model(images) - plain(images)).abs().max() > 1e-4


def test_activations_of_functions_are_observed(network, images):
    model = MaskedModel(Traced(network), Channels()).eval()
    with model.observe() as seen:
        model(images)
    wanted = torch.tanh(network.stem(images))
    torch.testing.assert_close(seen["network.stem"], wanted)
    assert (seen["network.conv1"] >= 0).all()
    scores = Statistical()(model, [(images, None)], torch.Generator())
    assert {name: score.shape for name, score in scores.items()} == {
        n: m.shape for n, m in model.masks.items()
    }


@pytest.mark.parametrize("granularity", [Weights(), Kernels(), Channels()])
def test_copies_and_pickles_own_their_masks(granularity, network, images):
    model = MaskedModel(Traced(network), granularity).eval()
    next(iter(model.masks.values())).view(-1)[:2] = False
    wanted = model(images)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for mask in model.masks.values():
        mask.zero_()
    assert all(torch.equal(other(images), wanted) for other in copies)
    assert not torch.equal(model(images), wanted)


def test_named_layers_stay_dense(network):
    names = [layer.name for layer in Traced(network, dense=["head", "conv.*"]).prunable_layers()]
    assert names == ["network.stem", "network.skip", "network.fc"]
    with pytest.raises(UserError, match="no layer is called 'conv3'; there are stem, conv1"):
        Traced(Functional(), dense=["conv3"])


class Repeats(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Conv2d(3, 2, 1)

    def forward(self, x):
        return self.head(F.relu(self.conv(F.relu(self.conv(x))))).mean((2, 3))


def test_a_layer_that_runs_twice_has_no_gate(images):
    traced = Traced(Repeats().eval())
    assert [(layer.name, layer.gate) for layer in traced.prunable_layers()] == [
        ("network.conv", None),
        ("network.head", None),
    ]
    with pytest.raises(
        UserError, match="no layer to prune at granularity Channels; possible are Weights, Kernels"
    ):
        MaskedModel(traced, Channels())


class Modes(Repeats):
    def forward(self, x):
        return super().forward(x + 1 if self.training else x)


class Branches(Repeats):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


class Pair(Repeats):
    def forward(self, x):
        return super().forward(x), x


@pytest.mark.parametrize(
    "kind, message",
    [
        (Modes, "cannot trace Modes: its forward differs between training and evaluation"),
        (
            Branches,
            "cannot trace Branches: symbolically traced variables cannot be used as inputs to control",
        ),
        (Pair, "cannot trace Pair: its forward returns more than one tensor"),
    ],
)
def test_what_cannot_be_traced_is_refused_by_name(kind, message):
    with pytest.raises(UserError, match=message):
        Traced(kind())


def test_tracing_leaves_the_modes_alone():
    network = Functional()
    network.bn1.eval()
    Traced(network)
    assert network.training and network.bn2.training and not network.bn1.training
