import pytest
import torch

from granprune.criteria import FromRun
from granprune.errors import UserError
from granprune.granularity import Channels, Kernels, Weights
from granprune.masking import MaskedModel
from granprune.pruning import prune
from granprune.run import checkpoint
from granprune.scope import LayerMatched


@pytest.fixture(params=[Weights, Kernels, Channels])
def model(request, convnet):
    return MaskedModel(convnet, request.param())


@pytest.fixture
def other(model, monkeypatch):
    """The masks of a run called `runs/other`."""
    generator = torch.Generator().manual_seed(0)
    masks = {name: torch.rand(m.shape, generator=generator) < 0.4 for name, m in model.masks.items()}

    def load_masks(run, like):
        if run != "runs/other" or like.keys() != masks.keys():
            raise UserError(f"no run {run}")
        return masks

    monkeypatch.setattr(checkpoint, "load_masks", load_masks)
    return masks


def pruned(model, criterion):
    scores = criterion(model, [], torch.Generator().manual_seed(1))
    return prune(model.masks, scores, LayerMatched("runs/other").groups(model, 0.5))


def test_another_runs_masks_are_taken_as_they_are(model, other):
    found = pruned(model, FromRun("runs/other"))
    assert all(torch.equal(found[name], mask) for name, mask in other.items())


def test_shuffled_masks_keep_their_layers_counts(model, other):
    found = pruned(model, FromRun("runs/other", shuffle=True))
    assert [int(m.sum()) for m in found.values()] == [int(m.sum()) for m in other.values()]
    assert any(not torch.equal(found[name], mask) for name, mask in other.items())


def test_shuffling_is_repeatable(model, other):
    first, again, elsewhere = (
        FromRun("runs/other", shuffle=True)(model, [], torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], elsewhere[name]) for name in first)


def test_a_run_that_cannot_be_read_is_refused_early(model, other):
    with pytest.raises(UserError, match="no run runs/missing"):
        FromRun("runs/missing").check(model)
