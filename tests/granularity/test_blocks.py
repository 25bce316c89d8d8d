import copy
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from granprune.counting import count
from granprune.criteria import (
    SNIP,
    GradientMagnitude,
    GraSP,
    Inverted,
    Magnitude,
    MovementSum,
    Random,
    SynFlow,
    Taylor,
)
from granprune.errors import UserError
from granprune.granularity import Blocks, Kernels, Weights
from granprune.masking import MaskedModel
from granprune.models import Prunable, PrunableLayer, ResNet20
from granprune.pruning import prune
from granprune.scope import ERK, NM, ByRole, Global, Layerwise

KERNELS = {"height": "full", "width": "full"}


@pytest.mark.parametrize(
    "blocks, weight, mask",
    [
        (Blocks(), (4, 3, 5, 5), (4, 3, 5, 5)),
        (Blocks(), (4, 3), (4, 3)),
        (Blocks(**KERNELS), (4, 3, 5, 5), (4, 3, 1, 1)),
        (Blocks(width="full"), (4, 3, 5, 5), (4, 3, 5, 1)),
        (Blocks(1, "full", "full", "full"), (4, 3, 5, 5), (4, 1, 1, 1)),
        (Blocks(1, "full"), (4, 3), (4, 1)),
        (Blocks(3, 2, 2, 9), (4, 3, 5, 5), (2, 2, 3, 1)),
        (Blocks(3, 2, 2, 9), (4, 3), (2, 2)),
    ],
)
def test_mask_shapes_with_and_without_a_batch(blocks, weight, mask):
    assert blocks.total(torch.zeros(weight)).shape == mask
    assert blocks.total(torch.zeros(7, *weight)).shape == (7, *mask)


def test_totals_means_and_shorter_blocks_by_hand():
    weight = torch.arange(12.0).view(2, 6)
    assert Blocks(1, 4).total(weight).tolist() == [[6, 9], [30, 21]]
    assert Blocks(1, 4).mean(weight).tolist() == [[1.5, 4.5], [7.5, 10.5]]
    assert Blocks(2, 3).mean(weight).tolist() == [[4, 7]]
    kernel = torch.arange(9.0).view(1, 1, 3, 3)
    assert Blocks(1, 1, 2, 2).total(kernel).flatten().tolist() == [0 + 1 + 3 + 4, 2 + 5, 6 + 7, 8]
    assert Blocks(1, 1, 2, 2).mean(kernel).flatten().tolist() == [2, 3.5, 6.5, 8]


SHAPES = st.one_of(
    st.tuples(*[st.integers(1, 7)] * 2), st.tuples(*[st.integers(1, 7)] * 2, *[st.integers(1, 4)] * 2)
)
EDGES = st.tuples(*[st.one_of(st.just("full"), st.integers(1, 8))] * 4)


def block_of(index, edges, shape):
    """Where a weight's mask entry is, from the definition."""
    sizes = [size if edge == "full" else edge for edge, size in zip(edges, shape, strict=False)]
    return tuple(i // size for i, size in zip(index, sizes, strict=True))


@given(SHAPES, EDGES)
@settings(deadline=None)
def test_total_and_expand_agree_with_the_definition(shape, edges):
    blocks = Blocks(*edges)
    weight = torch.arange(1.0, 1 + torch.Size(shape).numel()).view(shape)
    wanted = torch.zeros_like(blocks.total(weight))
    mask = torch.rand(wanted.shape) < 0.5
    expanded = torch.zeros(shape, dtype=torch.bool)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in shape)).view(-1, len(shape)).tolist():
        place = block_of(index, edges, shape)
        wanted[place] += weight[tuple(index)]
        expanded[tuple(index)] = mask[place]
    assert torch.equal(blocks.total(weight), wanted)
    assert torch.equal(blocks.expand(mask, torch.Size(shape)), expanded)


def test_the_forward_pass_sees_masked_blocks(convnet):
    plain = copy.deepcopy(convnet)
    model = MaskedModel(convnet, Blocks(2, 3, 2, "full"))
    generator = torch.Generator().manual_seed(0)
    for mask in model.masks.values():
        mask.copy_(torch.rand(mask.shape, generator=generator) < 0.5)
    with torch.no_grad():
        for name, mask in model.weight_masks().items():
            plain.get_submodule(name).weight.mul_(mask)
    images = torch.randn(3, 2, 4, 4, generator=generator)
    assert torch.equal(model.eval()(images), plain.eval()(images))
    assert all(mask.shape == model.weights()[name].shape for name, mask in model.weight_masks().items())


def test_macs_follow_the_blocks(convnet):
    model = MaskedModel(convnet, Blocks(1, "full", "full", "full"))
    model.masks["conv2"][1] = False  # a filter of 6 3x3 kernels, at 16 positions
    counts = count(model, (2, 4, 4))
    assert counts.dense_macs - counts.macs == 6 * 9 * 16
    assert {layer.name: layer.components for layer in counts.layers} == {"stem": 4, "conv1": 6, "conv2": 4}


def test_a_masked_filter_leaves_the_residual_stream_and_a_masked_channel_does_not():
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = MaskedModel(ResNet20(width=2).eval(), Blocks(1, "full", "full", "full"))
    seen = []
    model.network.blocks[0].register_forward_hook(
        lambda module, inputs, output: seen.append((inputs[0], output))
    )
    model.masks["blocks.0.conv2"][1] = False
    model(images)
    inputs, output = seen[0]
    assert (inputs[:, 1] > 0).any() and torch.equal(output[:, 1], inputs[:, 1])


@pytest.mark.parametrize("edge", [0, -1, "half", 1.5])
def test_an_edge_that_is_none_is_refused(edge):
    with pytest.raises(
        UserError, match=re.escape(f"Blocks.inputs is {edge!r}: give a number of weights from 1, or full")
    ):
        Blocks(inputs=edge)


class RandomNet(Prunable):
    """Two convolutions of any shape, the second grouped, and a linear layer."""

    def __init__(self, widths, kernels, groups, with_linear):
        super().__init__()
        self.a = nn.Conv2d(2, widths[0] * groups, kernels[0], padding=2)
        self.b = nn.Conv2d(widths[0] * groups, widths[1] * groups, kernels[1], padding=2, groups=groups)
        self.c = nn.Linear(widths[1] * groups, 3)
        self.names = ["a", "b", "c"] if with_linear else ["a", "b"]

    def forward(self, x):
        return self.c(F.relu(self.b(F.relu(self.a(x)))).mean((2, 3)))

    def prunable_layers(self):
        return [PrunableLayer(name) for name in self.names]


def random_net(seed, widths, kernels, groups, with_linear):
    torch.manual_seed(seed)
    return RandomNet(widths, kernels, groups, with_linear).eval()


SIZES = st.tuples(st.integers(1, 4), st.integers(1, 4))
EDGE = st.tuples(st.integers(1, 3), st.integers(1, 3))
CRITERIA = [
    Random(),
    Magnitude(),
    *(SNIP(reduction) for reduction in ("per_sample", "batch", "prefix_sums")),
    Taylor(),
    GradientMagnitude(),
    GraSP(temperature=1.0),
    SynFlow(),
    MovementSum(),
    Inverted(Magnitude()),
    Inverted(MovementSum()),
]
SCOPES = [Global(), Layerwise(), ByRole(), ERK(), NM(1, 2)]


def pruned(network, granularity, criterion, scope, batches):
    """The masks after two prunings at half the components, with a step of training observed in each."""
    model = MaskedModel(network, granularity)
    for density in (0.5,) if isinstance(scope, NM) else (0.6, 0.3):
        model.zero_grad()
        F.cross_entropy(model(batches[0][0]), batches[0][1]).backward()
        criterion.observe(model)
        scores = criterion(model, batches, torch.Generator().manual_seed(1))
        groups = scope.groups_now(model, density, lambda final: final)
        model.set_masks(scope.prune(model.masks, scores, groups))
    criterion.forget()
    return model.masks


@pytest.mark.parametrize("criterion", CRITERIA, ids=lambda criterion: type(criterion).__name__)
@pytest.mark.parametrize(
    "pair", [(Weights(), Blocks(), True), (Kernels(), Blocks(**KERNELS), False)], ids=["weights", "kernels"]
)
@given(st.integers(0, 99), SIZES, EDGE, st.integers(1, 2), st.sampled_from(SCOPES))
@settings(deadline=None, max_examples=12)
def test_blocks_of_weights_and_kernels_are_weights_and_kernels(
    criterion, pair, seed, widths, kernels, groups, scope
):
    named, blocks, with_linear = pair
    network = random_net(seed, widths, kernels, groups, with_linear)
    generator = torch.Generator().manual_seed(seed)
    batches = [(torch.randn(4, 2, 5, 5, generator=generator), torch.arange(4) % 3) for _ in range(2)]
    wanted = pruned(copy.deepcopy(network), named, criterion, scope, batches)
    found = pruned(network, blocks, criterion, scope, batches)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("criterion", CRITERIA, ids=lambda criterion: type(criterion).__name__)
@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: type(scope).__name__)
def test_every_criterion_and_scope_works_on_uneven_blocks(scope, criterion, convnet, batches):
    masks = pruned(convnet.eval(), Blocks(3, 4, 2, 2), criterion, scope, batches)
    total = sum(mask.numel() for mask in masks.values())
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert 0 < kept < total


def test_prune_keeps_whole_blocks(convnet):
    model = MaskedModel(convnet, Blocks(1, 2, "full", "full"))
    scores = Magnitude()(model, [], torch.Generator())
    model.set_masks(prune(model.masks, scores, Global().groups(model, 0.5)))
    expanded = model.weight_masks()["conv2"]  # (4, 6, 3, 3) in blocks of two inputs
    assert torch.equal(expanded[:, ::2], expanded[:, 1::2])
    assert torch.equal(expanded.all((2, 3)), expanded.any((2, 3)))
