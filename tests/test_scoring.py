import pytest
import torch

from granprune.criteria import Criterion, Magnitude
from granprune.errors import UserError
from granprune.granularity import Weights
from granprune.masking import MaskedModel
from granprune.schedule import Iterative, Never
from granprune.scope import NM, Global
from granprune.scoring import check, score, warn_of_deaths


class Given(Criterion):
    def __init__(self, scores):
        self.scores = scores

    def __call__(self, model, batches, generator):
        return self.scores


def scores_of(criterion, mlp, batches=()):
    return score(MaskedModel(mlp, Weights()), batches, criterion, torch.Generator())


def test_scores_are_the_criterions_in_evaluation_mode(mlp):
    modes = []

    class Noting(Magnitude):
        def __call__(self, model, batches, generator):
            modes.append(model.training)
            return super().__call__(model, batches, generator)

    scores = scores_of(Noting(), mlp)
    assert modes == [False] and mlp.training
    assert torch.equal(scores["head"], mlp.head.parametrizations.weight.original.abs())


@pytest.mark.parametrize(
    "scores, words",
    [
        (None, "criterion Given must return a score tensor for each of hidden, head"),
        ({"hidden": torch.zeros(3, 4)}, "must return a score tensor for each of hidden, head"),
        (
            {"hidden": torch.zeros(3), "head": torch.zeros(2, 3)},
            r"layer hidden scores of shape \(3,\); expected \(3, 4\)",
        ),
        (
            {"hidden": torch.zeros(3, 4), "head": torch.full((2, 3), torch.nan)},
            "layer head scores that are not a number",
        ),
    ],
)
def test_what_a_criterion_gets_wrong_is_refused(scores, words, mlp):
    with pytest.raises(UserError, match=words):
        scores_of(Given(scores), mlp)


def test_only_a_layer_that_has_just_died_is_named(caplog):
    dead, alive = torch.tensor([False, False]), torch.tensor([True, False])
    warn_of_deaths({"a": alive, "b": alive, "c": dead}, {"a": dead, "b": alive, "c": dead}, 3)
    (line,) = caplog.messages
    assert line.startswith("layer a died in round 3: none of its 2 components is left; ")


@pytest.mark.parametrize(
    "schedule, scope, density, words",
    [
        (Never(), Global(), 0.5, "pruning.density is 0.5, but schedule Never never prunes"),
        (Iterative(), NM(2, 4), 0.1, "pruning.density is 0.1, but scope NM keeps 2 of 4: make it 0.5"),
    ],
)
def test_densities_that_cannot_be_reached_are_refused(schedule, scope, density, words, mlp):
    model = MaskedModel(mlp, Weights())
    with pytest.raises(UserError, match=words):
        check(model, schedule, Magnitude(), scope, density)
    check(model, Never(), Magnitude(), Global(), 1.0)
    check(model, Iterative(), Magnitude(), NM(2, 4), 0.5)
