import pytest
import torch

from granprune.criteria import Statistical
from granprune.errors import UserError
from granprune.granularity import Channels, Kernels, Nodes, Weights
from granprune.masking import MaskedModel


def scores(model, batches, **options):
    return Statistical(**options)(model, batches, torch.Generator())


def rebatched(batches, size):
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return list(zip(images.split(size), labels.split(size), strict=True))


def activations(model, batches):
    with model.observe() as seen, torch.no_grad():
        model(torch.cat([images for images, _ in batches]))
    return {name: seen[name].double() for name in model.layers}


@pytest.fixture
def channels(convnet):
    return MaskedModel(convnet.eval(), Channels())


def test_formula(channels, batches):
    found = scores(channels, batches, alpha=2.0, beta=4.0)
    for name, x in activations(channels, batches).items():
        mean = x.mean(0).mean((1, 2))
        deviation = x.var(0, unbiased=False).sqrt().mean((1, 2))
        wanted = -2 / (mean + 1e-8) + deviation / 4
        assert found[name].shape == channels.masks[name].shape
        torch.testing.assert_close(found[name].flatten().double(), wanted, rtol=1e-5, atol=1e-5)


def test_nodes_are_observed_after_the_activation(mlp, flat_batches):
    model = MaskedModel(mlp.eval(), Nodes())
    x = activations(model, flat_batches)["hidden"]
    wanted = -1 / (x.mean(0) + 1e-8) + x.std(0, unbiased=False)
    found = scores(model, flat_batches)["hidden"]
    assert found.shape == (3,)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 10])
def test_batch_size_does_not_matter(size, channels, batches):
    wanted = scores(channels, batches)
    for name, score in scores(channels, rebatched(batches, size)).items():
        torch.testing.assert_close(score, wanted[name])


def test_batch_sums_depend_on_the_batch_size_as_released(channels, batches):
    size = 5
    found = scores(channels, rebatched(batches, size), deviation="batch_sums")
    for name, x in activations(channels, batches).items():
        squares = x.unflatten(0, (-1, size)).sum(1).square().sum(0) / len(x)
        spread = (squares - x.mean(0).square()).clamp(min=0).sqrt().mean((1, 2))
        wanted = -1 / (x.mean((0, 2, 3)) + 1e-8) + spread
        torch.testing.assert_close(found[name].flatten().double(), wanted, rtol=1e-5, atol=1e-5)
    ones = scores(channels, rebatched(batches, 1), deviation="batch_sums")
    right = scores(channels, batches)
    assert all(torch.allclose(ones[name], right[name], atol=1e-4) for name in right)
    assert any(not torch.allclose(found[name], right[name], atol=1e-1) for name in right)


def test_a_large_mean_does_not_swamp_the_deviation(mlp):
    model = MaskedModel(mlp.eval(), Nodes())
    with torch.no_grad():
        mlp.hidden.weight.zero_()
        mlp.hidden.weight[:, 0] = 1
        mlp.hidden.bias.fill_(2**14)
    images = torch.zeros(1000, 1, 2, 2)
    images[:500, 0, 0, 0] = 1  # the activations alternate between 2^14 and 2^14 + 1
    found = scores(model, [(batch, None) for batch in images.split(7)])["hidden"]
    torch.testing.assert_close(found, torch.full((3,), 0.5 - 1 / (2**14 + 0.5)))


def test_dead_channels_score_lowest_and_finite(channels, batches):
    channels.masks["stem"][2] = False
    found = scores(channels, batches)["stem"].flatten()
    assert found[2] == pytest.approx(-1e8)
    assert found.argmin() == 2 and found.isfinite().all()


def test_the_model_is_left_as_it_was(channels, batches):
    before = {key: value.clone() for key, value in channels.state_dict().items()}
    scores(channels, batches)
    assert all(torch.equal(channels.state_dict()[key], value) for key, value in before.items())
    assert all(parameter.grad is None for parameter in channels.parameters())


@pytest.mark.parametrize("granularity", [Weights, Kernels])
def test_granularities_without_activations_are_refused(granularity, convnet):
    with pytest.raises(
        UserError, match=f"cannot score granularity {granularity.__name__}; it scores Channels"
    ):
        Statistical().check(MaskedModel(convnet, granularity()))


def test_channels_and_nodes_pass_the_check(channels, mlp):
    Statistical().check(channels)
    Statistical().check(MaskedModel(mlp, Nodes()))
