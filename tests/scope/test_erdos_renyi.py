import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from granprune.criteria import Random
from granprune.granularity import Blocks, Channels, Kernels, Weights
from granprune.masking import MaskedModel
from granprune.models import Prunable, PrunableLayer, ResNet20
from granprune.pruning import prune
from granprune.schedule import Iterative
from granprune.scope import ER, ERK


class Stack(Prunable):
    """Layers that are never called: only their shapes count here."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        raise NotImplementedError

    def prunable_layers(self):
        return [PrunableLayer(f"layers.{i}") for i in range(len(self.layers))]


def kept(scope, model, density):
    sizes = [mask.numel() for mask in model.masks.values()]
    groups = scope.groups(model, density)
    assert [names for names, _ in groups] == [[name] for name in model.layers]
    return [share * size for (_, share), size in zip(groups, sizes, strict=True)]


def test_densities_by_hand():
    model = MaskedModel(Stack(nn.Linear(10, 10), nn.Linear(10, 30)), Weights())
    # 20/100 and 40/300: in proportion 3 to 2, so weights in proportion 20 to 40
    assert kept(ER(), model, 60 / 400) == pytest.approx([20, 40])
    conv = MaskedModel(Stack(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3)), Weights())
    assert kept(ER(), conv, 32 / 160) == pytest.approx([3, 29], abs=1)  # same density: 16 to 144
    assert kept(ERK(), conv, 24 / 160) == pytest.approx([10, 14])  # (4+4+1+1) to (4+4+3+3)


def test_a_layer_that_is_full_leaves_the_rest_to_the_others():
    model = MaskedModel(Stack(nn.Linear(2, 2), nn.Linear(20, 20)), Weights())
    # 4/4 and 40/400: in proportion 10 to 1, so 4 to 40 of 404; above, the first is full
    assert kept(ER(), model, 44 / 404) == pytest.approx([4, 40])
    assert kept(ER(), model, 104 / 404) == pytest.approx([4, 100])
    assert kept(ER(), model, 1.0) == pytest.approx([4, 400])


def by_bisection(ratios, sizes, density):
    """Densities min(1, factor * ratio) that make up the total: the definition, in real numbers."""
    low, high = 0.0, 1 / min(ratios)
    for _ in range(200):
        factor = (low + high) / 2
        total = sum(min(1, factor * r) * n for r, n in zip(ratios, sizes, strict=True))
        low, high = (factor, high) if total < density * sum(sizes) else (low, factor)
    return [min(1, low * r) for r in ratios]


@pytest.mark.parametrize("density", [0.9, 0.5, 0.1, 0.02])
@pytest.mark.parametrize("granularity", [Weights(), Kernels(), Blocks(2, 3), Channels()])
@pytest.mark.parametrize("scope", [ER(), ERK()])
def test_densities_are_those_of_the_definition_to_a_component(scope, granularity, density):
    model = MaskedModel(ResNet20(width=4), granularity)
    sizes = [mask.numel() for mask in model.masks.values()]
    shapes = [weight.shape for weight in model.weights().values()]
    if isinstance(scope, ERK):
        ratios = [sum(shape) / shape.numel() for shape in shapes]
    else:
        ratios = [(s[0] + s[1]) / (s[0] * s[1]) for s in shapes]
    wanted = by_bisection(ratios, sizes, density)
    for found, share, size in zip(kept(scope, model, density), wanted, sizes, strict=True):
        assert abs(found - share * size) <= 1


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6),
    st.floats(0, 1),
    st.floats(0, 1),
)
@settings(deadline=None)
def test_counts_are_exact_and_no_layer_gets_a_component_back(shapes, one, other):
    model = MaskedModel(Stack(*(nn.Linear(i, o) for o, i in shapes)), Weights())
    total = sum(mask.numel() for mask in model.masks.values())
    more, fewer = (kept(ER(), model, density) for density in (max(one, other), min(one, other)))
    assert sum(more) == pytest.approx(total - round((1 - max(one, other)) * total))
    assert sum(fewer) == pytest.approx(total - round((1 - min(one, other)) * total))
    assert all(a >= b - 1e-9 for a, b in zip(more, fewer, strict=True))


@pytest.mark.parametrize("granularity", [Weights(), Kernels(), Blocks(2, 3), Channels()])
def test_every_round_ends_at_the_scheduled_count(granularity):
    model = MaskedModel(ResNet20(width=4), granularity)
    total = sum(mask.numel() for mask in model.masks.values())
    schedule = Iterative(rounds=5)
    for k in range(1, 6):
        scores = Random()(model, [], torch.Generator().manual_seed(k))
        groups = ERK().groups_now(model, 0.1, lambda final, k=k: schedule.density(k, final))
        model.set_masks(prune(model.masks, scores, groups))
        wanted = total - round((1 - schedule.density(k, 0.1)) * total)
        assert sum(int(mask.sum()) for mask in model.masks.values()) == wanted
