import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from granprune.counting import count
from granprune.errors import UserError
from granprune.granularity import Channels, Kernels, Nodes, Weights
from granprune.masking import MaskedModel
from granprune.models import DBSN, Prunable, PrunableLayer, ResNet20

POSITIONS = 7 * [32 * 32] + 6 * [16 * 16] + 6 * [8 * 8]  # outputs of ResNet-20's masked layers
WIDTHS = 7 * [16] + 6 * [32] + 6 * [64]


def prune_at_random(model: MaskedModel, density: float, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for mask in model.masks.values():
        mask.copy_(torch.rand(mask.shape, generator=generator) < density)
    return list(model.masks.values())


@pytest.mark.parametrize("granularity", [Weights, Kernels, Channels])
@pytest.mark.parametrize("classes, macs, parameters", [(10, 40_813_184, 272_474), (100, 40_818_944, 278_324)])
def test_dense_resnet(classes, macs, parameters, granularity):
    counts = count(MaskedModel(ResNet20(classes), granularity()), (3, 32, 32))
    assert counts.macs == counts.effective_macs == counts.dense_macs == macs
    assert counts.parameters == counts.kept_parameters == parameters
    assert counts.density == 1 and counts.dead_layers == ()
    assert sum(layer.macs for layer in counts.layers) == macs - 262_144 - 64 * classes
    assert [layer.macs for layer in counts.layers[:8]] == [442_368] + 6 * [2_359_296] + [1_179_648]


@pytest.mark.parametrize("granularity, components", [(Weights, 11_965_000), (Nodes, 7_500)])
def test_dense_mlp(granularity, components):
    counts = count(MaskedModel(DBSN(), granularity()), (1, 28, 28))
    assert counts.macs == counts.effective_macs == counts.dense_macs == 11_965_000
    assert counts.parameters == counts.kept_parameters == 11_972_510
    assert sum(layer.components for layer in counts.layers) == components


@pytest.mark.parametrize("granularity, size", [(Weights, 1), (Kernels, 9)])
@pytest.mark.parametrize("density", [0.7, 0.05])
def test_masked_resnet_weights_and_kernels(granularity, size, density):
    model = MaskedModel(ResNet20(), granularity())
    kept = [int(mask.sum()) * size for mask in prune_at_random(model, density)]
    counts = count(model, (3, 32, 32))
    assert [layer.kept_parameters for layer in counts.layers] == kept
    assert [layer.macs for layer in counts.layers] == [k * p for k, p in zip(kept, POSITIONS, strict=True)]
    assert counts.macs == sum(layer.macs for layer in counts.layers) + 262_144 + 640
    assert counts.kept_parameters == sum(kept) + 2_560 + 1_568 + 650
    assert counts.effective_macs <= counts.macs


def resnet_channels(kept: list[int]) -> tuple[list[int], int, int]:
    """MACs of the masked layers and of the whole network, and parameters, from kept channels."""
    inputs = [3, *kept[:-1]]  # in forward order each layer reads the one before
    macs = [9 * i * o * p for i, o, p in zip(inputs, kept, POSITIONS, strict=True)]
    parameters = sum(9 * i * o for i, o in zip(inputs, kept, strict=True)) + 2 * sum(kept)
    total = sum(macs)
    for before, after, positions in (6, 8, 16 * 16), (12, 14, 8 * 8):  # the 1x1 shortcuts
        total += kept[before] * kept[after] * positions
        parameters += kept[before] * kept[after] + 2 * kept[after]
    return macs, total + 10 * kept[18], parameters + 10 * kept[18] + 10


@pytest.mark.parametrize("density", [1.0, 0.6, 0.2])
def test_masked_resnet_channels(density):
    model = MaskedModel(ResNet20(), Channels())
    kept = [int(mask.sum()) for mask in prune_at_random(model, density)]
    counts = count(model, (3, 32, 32))
    macs, total, parameters = resnet_channels(kept)
    assert [layer.kept for layer in counts.layers] == kept
    assert [layer.components for layer in counts.layers] == WIDTHS
    assert [layer.macs for layer in counts.layers] == macs
    assert (counts.macs, counts.kept_parameters) == (total, parameters)
    assert counts.density == sum(kept) / 688


def test_masked_mlp_nodes():
    model = MaskedModel(DBSN(widths=(20, 15, 10), in_features=30), Nodes())
    a, b, c = (int(mask.sum()) for mask in prune_at_random(model, 0.5))
    counts = count(model, (1, 5, 6))
    assert [layer.macs for layer in counts.layers] == [30 * a, a * b, b * c]
    assert counts.macs == counts.effective_macs == 30 * a + a * b + b * c + c * 10
    assert counts.kept_parameters == counts.macs + a + b + c + 10


def test_dead_paths_by_hand(mlp):
    model = MaskedModel(mlp, Weights())
    model.masks["hidden"].copy_(torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 1, 1]]))
    model.masks["head"].copy_(torch.tensor([[1, 1, 0], [0, 1, 0]]))
    counts = count(model, (1, 2, 2))
    assert [layer.macs for layer in counts.layers] == [5, 3]
    # Only inputs 0, 1 -> hidden 0 -> output 0 is whole: hidden 1 hears nothing, nothing hears hidden 2.
    assert [layer.effective_macs for layer in counts.layers] == [2, 1]
    assert (counts.macs, counts.effective_macs, counts.dense_macs) == (8, 3, 18)
    assert counts.kept_parameters == 8 + 5


def test_a_dead_layer_leaves_nothing_effective(mlp):
    model = MaskedModel(mlp, Weights())
    model.masks["head"].zero_()
    counts = count(model, (1, 2, 2))
    assert counts.dead_layers == ("head",)
    assert (counts.macs, counts.effective_macs) == (12, 0)
    assert counts.density == 12 / 18


def test_the_skip_keeps_a_residual_network_alive(convnet):
    model = MaskedModel(convnet, Kernels())
    model.masks["conv1"].zero_()
    counts = count(model, (2, 4, 4))
    layers = {layer.name: layer for layer in counts.layers}
    assert layers["stem"].effective_macs == 72 * 16  # through the skip
    assert layers["conv2"].macs == 216 * 16 and layers["conv2"].effective_macs == 0
    assert counts.effective_macs == 72 * 16 + 12


def closure(links: dict[tuple[str, str], torch.Tensor], order: list[str]) -> dict:
    """Which weights-or-not links lie on a path from the first to the last set of units."""
    reached = {order[0]: torch.ones(links[order[0], order[1]].shape[1], dtype=torch.bool)}
    for unit in order[1:]:
        parts = [link @ reached[a].float() > 0 for (a, b), link in links.items() if b == unit]
        reached[unit] = torch.stack(parts).any(0)
    needed = {order[-1]: torch.ones_like(reached[order[-1]])}
    for unit in reversed(order[:-1]):
        parts = [link.T @ needed[b].float() > 0 for (a, b), link in links.items() if a == unit]
        needed[unit] = torch.stack(parts).any(0)
    return {(a, b): (link > 0) & needed[b][:, None] & reached[a] for (a, b), link in links.items()}


def block_diagonal(weights: torch.Tensor, groups: int) -> torch.Tensor:
    return torch.block_diag(*weights.float().chunk(groups))


def toy_links(masks: dict[str, torch.Tensor]) -> dict[tuple[str, str], torch.Tensor]:
    """The kept kernels of the toy network as out x in matrices; its skip is the identity."""
    return {
        ("image", "stem"): masks["stem"][:, :, 0, 0].float(),
        ("stem", "inner"): block_diagonal(masks["conv1"][:, :, 0, 0], 2),
        ("inner", "sum"): masks["conv2"][:, :, 0, 0].float(),
        ("stem", "sum"): torch.eye(4),
        ("sum", "output"): torch.ones(3, 4),
    }


@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.3, 0.6]))
def test_effective_kernels_of_a_grouped_residual_network(toy_convnet, seed, density):
    model = MaskedModel(toy_convnet(), Kernels())
    prune_at_random(model, density, seed)
    live = closure(toy_links(model.masks), ["image", "stem", "inner", "sum", "output"])
    wanted = [144 * int(live[key].sum()) for key in [("image", "stem"), ("stem", "inner"), ("inner", "sum")]]
    counts = count(model, (2, 4, 4))
    assert [layer.effective_macs for layer in counts.layers] == wanted
    assert counts.effective_macs == sum(wanted) + int(live["sum", "output"].sum())
    assert [layer.macs for layer in counts.layers] == [144 * int(m.sum()) for m in model.masks.values()]


@given(st.integers(0, 10_000), st.sampled_from([0.2, 0.5, 0.8]))
def test_channels_of_a_grouped_residual_network(toy_convnet, seed, density):
    model = MaskedModel(toy_convnet(), Channels())
    stem, inner, outer = (mask.flatten().float() for mask in prune_at_random(model, density, seed))
    ones = {name: torch.ones(model.module(name).weight.shape[:2] + (1, 1)) for name in model.layers}
    links = toy_links(ones)
    links["image", "stem"] *= stem[:, None]
    links["stem", "inner"] *= inner[:, None] * stem
    links["inner", "sum"] *= outer[:, None] * inner
    links["stem", "sum"] *= outer[:, None] * stem
    links["sum", "output"] *= outer
    counts = count(model, (2, 4, 4))
    layers = [("image", "stem"), ("stem", "inner"), ("inner", "sum")]
    assert [layer.macs for layer in counts.layers] == [144 * int(links[key].sum()) for key in layers]
    assert counts.macs == sum(layer.macs for layer in counts.layers) + 3 * int(outer.sum())
    live = closure(links, ["image", "stem", "inner", "sum", "output"])
    assert [layer.effective_macs for layer in counts.layers] == [144 * int(live[key].sum()) for key in layers]


class Separable(Prunable):
    """A depthwise and a pointwise convolution, a pooling that keeps several positions, two linears."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(3, 6, 3, stride=2, groups=3)  # 9x9 -> 4x4
        self.act = activation
        self.pointwise = nn.Conv2d(6, 5, 1)
        self.pool = nn.MaxPool2d(2)
        self.hidden = nn.Linear(5 * 2 * 2, 4)
        self.head = nn.Linear(4, 2, bias=False)

    def forward(self, x):
        x = self.pool(self.pointwise(self.act(self.depthwise(x))))
        return self.head(torch.sigmoid(self.hidden(x.flatten(1))))

    def prunable_layers(self):
        names = ("depthwise", "pointwise", "hidden", "head")
        gates = (self.depthwise, self.pointwise, self.hidden, None)
        return [
            PrunableLayer(name, gate=None if gate is None else name)
            for name, gate in zip(names, gates, strict=True)
        ]


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Sigmoid(), nn.GELU(), nn.ReLU6(), nn.Softplus()])
def test_depthwise_pooled_and_flattened(activation):
    model = MaskedModel(Separable(activation), Channels())
    model.masks["depthwise"][0] = False
    model.masks["depthwise"][5] = False
    model.masks["pointwise"][1:3] = False
    counts = count(model, (3, 9, 9))
    assert counts.dense_macs == 6 * 9 * 16 + 6 * 5 * 16 + 20 * 4 + 4 * 2
    # 4 of 6 depthwise channels, 4 x 3 pointwise weights, 3 channels x 4 positions into hidden
    assert counts.macs == counts.effective_macs == 4 * 9 * 16 + 4 * 3 * 16 + 12 * 4 + 8
    assert counts.kept_parameters == (36 + 4) + (12 + 3) + (48 + 4) + 8


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Sigmoid(), nn.Softplus()])
def test_constants_keep_no_path_alive(activation):
    model = MaskedModel(Separable(activation), Weights())
    model.masks["depthwise"][2] = False  # it still puts out its bias, and sigmoid(bias)
    counts = count(model, (3, 9, 9))
    layers = {layer.name: layer for layer in counts.layers}
    assert layers["pointwise"].macs == 30 * 16
    assert layers["pointwise"].effective_macs == 25 * 16
    assert counts.effective_macs == counts.dense_macs - 9 * 16 - 5 * 16


def test_a_layer_that_runs_twice_costs_twice(mlp):
    plain = mlp.forward
    mlp.forward = lambda x: plain(x) + plain(-x)
    model = MaskedModel(mlp, Nodes())
    model.masks["hidden"][0] = False
    counts = count(model, (1, 2, 2))
    assert counts.dense_macs == 2 * 18
    assert counts.macs == 2 * (2 * 4 + 2 * 2)
    assert counts.kept_parameters == 8 + 2 + 4 + 2


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("granularity", [Weights, Channels])
def test_the_model_is_left_as_it_was(mode, granularity, convnet, batches):
    model = MaskedModel(convnet.double(), granularity())
    prune_at_random(model, 0.5)
    convnet.act1.eval()
    model(batches[0][0].double()).sum().backward()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    hooks = [len(module._forward_hooks) for module in model.modules()]
    rng = torch.get_rng_state()
    with mode():
        first = count(model, (2, 4, 4))
    assert first == count(model, (2, 4, 4))
    assert torch.equal(torch.get_rng_state(), rng)
    assert [module.training for module in model.modules()] == modes
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))


def test_weights_do_not_matter_only_masks_do(convnet):
    model = MaskedModel(convnet, Weights())
    before = count(model, (2, 4, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert count(model, (2, 4, 4)) == before


def test_other_layers_with_parameters_are_refused(mlp):
    mlp.act = nn.LayerNorm(3)
    with pytest.raises(UserError, match="LayerNorm 'act'"):
        count(MaskedModel(mlp, Weights()), (1, 2, 2))
