import pytest
import torch

from granprune.criteria import Random
from granprune.granularity import Channels, Kernels, Weights
from granprune.masking import MaskedModel


@pytest.mark.parametrize("granularity", [Weights, Kernels, Channels])
def test_scores_depend_on_the_generator_alone(granularity, convnet):
    model = MaskedModel(convnet, granularity())
    draws = [Random()(model, [], torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    for name, mask in model.masks.items():
        first, again, other = (draw[name] for draw in draws)
        assert first.shape == mask.shape
        assert torch.equal(first, again) and not torch.equal(first, other)
        assert first.min() >= 0 and first.max() < 1


def test_the_global_generator_is_left_alone(convnet):
    before = torch.get_rng_state()
    Random()(MaskedModel(convnet, Weights()), [], torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_every_round_draws_anew(convnet):
    model, generator = MaskedModel(convnet, Weights()), torch.Generator().manual_seed(0)
    first, second = Random()(model, [], generator), Random()(model, [], generator)
    assert not torch.equal(first["stem"], second["stem"])
