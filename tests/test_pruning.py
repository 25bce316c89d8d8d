import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from granprune.pruning import keep_top, prune

DENSITIES = st.floats(0, 1)


def ranked(seed: int, sizes: list[int], levels: int) -> tuple[dict, dict]:
    """Masks of ones and scores with many ties (few levels)."""
    generator = torch.Generator().manual_seed(seed)
    scores = {f"l{i}": torch.randint(levels, (n,), generator=generator).float() for i, n in enumerate(sizes)}
    return {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}, scores


NETWORKS = st.builds(
    ranked, st.integers(0, 999), st.lists(st.integers(1, 30), min_size=1), st.integers(1, 40)
)


def count(masks: dict) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


@given(NETWORKS, DENSITIES)
def test_exactly_the_rounded_number_goes_also_among_ties(network, target):
    masks, scores = network
    total = count(masks)
    assert count(prune(masks, scores, [(list(masks), target)])) == total - round((1 - target) * total)


@given(NETWORKS, DENSITIES)
def test_nothing_kept_scores_less_than_anything_pruned(network, target):
    masks, scores = network
    pruned = prune(masks, scores, [(list(masks), target)])
    flat = torch.cat(list(scores.values()))
    kept = torch.cat(list(pruned.values()))
    assert kept.all() or not kept.any() or flat[kept].min() >= flat[~kept].max()


@given(NETWORKS, DENSITIES, DENSITIES, st.integers(0, 999))
def test_masks_are_nested_over_rounds(network, first, second, seed):
    masks, scores = network
    once = prune(masks, scores, [(list(masks), first)])
    generator = torch.Generator().manual_seed(seed)
    rescored = {name: torch.randn(score.shape, generator=generator) for name, score in scores.items()}
    twice = prune(once, rescored, [(list(masks), second)])
    assert all(not (twice[name] & ~once[name]).any() for name in masks)
    total = count(masks)
    assert count(twice) == min(count(once), total - round((1 - second) * total))


@given(NETWORKS, NETWORKS, DENSITIES, DENSITIES)
def test_groups_do_not_see_each_other(one, other, density_of_one, density_of_other):
    masks, scores = one
    theirs = {f"other {name}": mask for name, mask in other[0].items()}
    their_scores = {f"other {name}": score for name, score in other[1].items()}
    groups = [(list(masks), density_of_one), (list(theirs), density_of_other)]
    together = prune(masks | theirs, scores | their_scores, groups)
    alone = prune(masks, scores, groups[:1]) | prune(theirs, their_scores, groups[1:])
    assert all(torch.equal(together[name], alone[name]) for name in together)


@given(NETWORKS, DENSITIES, st.integers(1, 5))
def test_min_components_stay_in_each_layer(network, target, least):
    masks, scores = network
    total = count(masks)
    protected = sum(min(least, mask.numel()) for mask in masks.values())
    pruned = prune(masks, scores, [(list(masks), target)], least)
    wanted = total - round((1 - target) * total)
    if wanted >= protected:
        assert all(mask.sum() >= min(least, mask.numel()) for mask in pruned.values())
        assert count(pruned) == wanted


def test_the_best_components_are_the_protected_ones():
    masks = {"a": torch.ones(3, dtype=torch.bool), "b": torch.ones(3, dtype=torch.bool)}
    scores = {"a": torch.tensor([0.1, 0.3, 0.2]), "b": torch.tensor([1.0, 2.0, 3.0])}
    pruned = prune(masks, scores, [(["a", "b"], 0.5)], min_components=1)
    assert pruned["a"].tolist() == [False, True, False]
    assert pruned["b"].tolist() == [False, True, True]


def test_pruned_components_stay_pruned_whatever_their_score():
    masks = {"a": torch.tensor([False, True, True, True])}
    pruned = prune(masks, {"a": torch.tensor([9.0, 1.0, 2.0, 3.0])}, [(["a"], 0.5)])
    assert pruned["a"].tolist() == [False, False, True, True]


def test_masks_of_layers_outside_the_groups_are_copies():
    masks = {"a": torch.ones(2, dtype=torch.bool), "b": torch.ones(2, dtype=torch.bool)}
    pruned = prune(masks, {"a": torch.tensor([1.0, 2.0])}, [(["a"], 0.5)])
    assert pruned["b"].all() and pruned["b"] is not masks["b"]
    assert masks["a"].all()


def test_infinite_scores_are_ranked_and_nan_is_refused():
    masks = {"a": torch.ones(3, dtype=torch.bool)}
    pruned = prune(masks, {"a": torch.tensor([torch.inf, -torch.inf, 0.0])}, [(["a"], 2 / 3)])
    assert pruned["a"].tolist() == [True, False, True]
    with pytest.raises(ValueError, match="layer a contain NaN"):
        prune(masks, {"a": torch.tensor([1.0, torch.nan, 2.0])}, [(["a"], 0.5)])


@pytest.mark.parametrize("n, pruned", [(1, 0), (3, 2), (5, 2), (7, 4)])
def test_halves_round_to_even(n, pruned):
    assert int(keep_top(torch.arange(n), 0.5).sum()) == n - pruned


KEPT = {  # density -> weights, kernels, channels of ResNet-20, weights and nodes of the MLP
    1 / 2: (133_848, 14_872, 344, 5_982_500, 3_750),
    1 / 4: (66_924, 7_436, 172, 2_991_250, 1_875),
    1 / 8: (33_462, 3_718, 86, 1_495_625, 938),
    1 / 16: (16_731, 1_859, 43, 747_812, 469),
    1 / 32: (8_366, 930, 22, 373_906, 234),
    1 / 64: (4_183, 465, 11, 186_953, 117),
}


@pytest.mark.parametrize("target", KEPT)
def test_counts_of_the_paper(target):
    totals = (267_696, 29_744, 688, 11_965_000, 7_500)
    for total, kept in zip(totals, KEPT[target], strict=True):
        assert int(keep_top(torch.zeros(total), target).sum()) == kept
