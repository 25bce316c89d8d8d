import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from granprune.errors import UserError
from granprune.granularity import Blocks, Channels, Kernels, Weights
from granprune.masking import MaskedModel
from granprune.models import ResNet20
from granprune.schedule import Iterative
from granprune.scope import NM


def test_two_of_four_by_hand():
    masks = {"a": torch.ones(2, 8, dtype=torch.bool)}
    scores = {"a": torch.tensor([[1.0, 4, 3, 2, 5, 6, 7, 8], [9, 8, 7, 6, -1, -2, -3, -4]])}
    found = NM().prune(masks, scores, [(["a"], 0.5)])
    assert found["a"].int().tolist() == [[0, 1, 1, 0, 0, 0, 1, 1], [1, 1, 0, 0, 1, 1, 0, 0]]


SHAPES = st.one_of(
    st.tuples(*[st.integers(1, 9)] * 2), st.tuples(*[st.integers(1, 9)] * 2, *[st.integers(1, 3)] * 2)
)


@given(SHAPES, st.integers(1, 5), st.integers(0, 3), st.integers(0, 99))
@settings(deadline=None)
def test_any_pattern_on_any_shape(shape, n, more, seed):
    scores = torch.randperm(torch.Size(shape).numel(), generator=torch.Generator().manual_seed(seed)).view(
        shape
    )
    masks = {"a": torch.ones(shape, dtype=torch.bool)}
    scope = NM(n, n + more)
    found = scope.prune(masks, {"a": scores.float()}, [(["a"], n / (n + more))])["a"]
    rows = scores.movedim(1, -1).reshape(-1, shape[1])
    marks = torch.zeros_like(rows, dtype=torch.bool)
    for row, mark in zip(rows, marks, strict=True):
        for start in range(0, len(row), n + more):
            run = row[start : start + n + more]
            mark[start + run.argsort(descending=True)[:n]] = True
    wanted = marks.view(scores.movedim(1, -1).shape).movedim(-1, 1)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("granularity", [Weights(), Kernels(), Blocks(1, 2)])
def test_rounds_are_nested_and_end_exact(granularity):
    model = MaskedModel(ResNet20(width=4), granularity)
    scope, schedule = NM(1, 4), Iterative(rounds=3)
    counts = []
    for k in range(1, 4):
        before = {name: mask.clone() for name, mask in model.masks.items()}
        generator = torch.Generator().manual_seed(k)
        scores = {name: torch.rand(mask.shape, generator=generator) for name, mask in before.items()}
        groups = scope.groups_now(model, 0.25, lambda final, k=k: schedule.density(k, final))
        model.set_masks(scope.prune(model.masks, scores, groups, 0))
        assert all(not (mask & ~before[name]).any() for name, mask in model.masks.items())
        runs = model.masks["blocks.8.conv2"].movedim(1, -1).unflatten(-1, (-1, 4)).sum(-1)
        counts.append(runs.unique().tolist())
    assert counts == [[3], [2], [1]]  # 0.63, 0.40 and 0.25 of 4
    assert (model.masks["conv"].sum(1) == 1).all()  # two or three inputs: a short run


def test_units_have_no_inputs_to_run_along():
    with pytest.raises(UserError, match="scope NM runs along a layer's inputs, which Channels do not have"):
        NM().groups(MaskedModel(ResNet20(width=2), Channels()), 1.0)


def test_more_than_all_is_refused():
    with pytest.raises(UserError, match="scope.n is 5: it must be at most pruning.scope.m, which is 4"):
        NM(5, 4)


def test_nan_is_refused():
    masks = {"a": torch.ones(1, 4, dtype=torch.bool)}
    with pytest.raises(ValueError, match="layer a contain NaN"):
        NM().prune(masks, {"a": torch.full((1, 4), torch.nan)}, [(["a"], 0.5)])


def test_linear_layers_and_convolutions_of_one_input():
    conv = nn.Conv2d(6, 6, 3, groups=6)
    masks = {"a": torch.ones_like(conv.weight, dtype=torch.bool)}
    assert NM().prune(masks, {"a": torch.rand(conv.weight.shape)}, [(["a"], 0.5)])["a"].all()
