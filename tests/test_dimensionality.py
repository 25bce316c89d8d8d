import numpy as np
import pytest
import torch

from granprune import dimensionality as module
from granprune.dimensionality import Dimensionality, dimensionality
from granprune.errors import UserError
from granprune.granularity import Channels, Kernels, Nodes, Weights
from granprune.masking import MaskedModel
from granprune.models import DBSN, ResNet20


def data(samples, shape, size, seed=0):
    images = torch.randn(samples, *shape, generator=torch.Generator().manual_seed(seed)) * 2 + 1
    return [(batch, torch.zeros(len(batch))) for batch in images.split(size)]


def from_eigenvalues(model, batches):
    """(sum lambda)^2 / sum lambda^2 of every observed layer, in float64."""
    with model.observe() as seen, torch.no_grad():
        model.eval()(torch.cat([images for images, _ in batches]))
    found = {}
    for name, x in seen.items():
        x = x.flatten(1).double().numpy()
        eigenvalues = np.linalg.eigvalsh(np.cov(x.T, bias=True))
        found[name] = (eigenvalues.sum() ** 2 / (eigenvalues**2).sum(), x.shape[1])
    return found


def assert_close(found, wanted):
    for name, dimension in found.items():
        assert dimension.effective == pytest.approx(wanted[name][0], rel=1e-5)
        assert dimension.actual == wanted[name][1]


@pytest.mark.parametrize("block", [7, 1024])
@pytest.mark.parametrize("samples", [20, 80, 100, 200])  # features are 64 and 96: on all sides
def test_it_is_the_participation_ratio_of_eigenvalues(samples, block, convnet, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", block)
    model = MaskedModel(convnet, Weights())
    batches = data(samples, (2, 4, 4), 6)
    assert_close(dimensionality(model, batches, ["stem", "conv1", "conv2"]), from_eigenvalues(model, batches))


@pytest.mark.parametrize("granularity", [Weights, Kernels, Channels])
def test_under_masks_with_pruned_units_in_the_actual_number(granularity, convnet):
    model = MaskedModel(convnet, granularity())
    generator = torch.Generator().manual_seed(0)
    for mask in model.masks.values():
        mask.copy_(torch.rand(mask.shape, generator=generator) < 0.7)
    batches = data(30, (2, 4, 4), 8)
    found = dimensionality(model, batches)
    assert_close(found, from_eigenvalues(model, batches))
    assert [dimension.actual for dimension in found.values()] == [64, 64]


def test_by_default_the_layers_of_the_paper():
    model = MaskedModel(ResNet20(width=2), Weights())
    found = dimensionality(model, data(3, (3, 8, 8), 3))
    assert list(found) == ["conv", *(f"blocks.{i}.conv2" for i in range(9))]
    assert [dimension.actual for dimension in found.values()] == 4 * [128] + 3 * [64] + 3 * [32]
    mlp = MaskedModel(DBSN(widths=(5, 4, 3, 3, 3), in_features=4), Nodes())
    assert list(dimensionality(mlp, data(3, (1, 2, 2), 3))) == [f"hidden.{i}" for i in range(5)]


def test_known_dimensions(mlp):
    model = MaskedModel(mlp, Weights())
    with torch.no_grad():
        model.weights()["hidden"].copy_(torch.eye(3, 4))
        mlp.hidden.bias.fill_(10)
    corners = torch.tensor([[a, b, 0, 5] for a in (-1, 1) for b in (-1, 1)]).float().view(4, 1, 2, 2)
    batches = [(corners, None)] * 5
    assert dimensionality(model, batches) == {"hidden": Dimensionality(pytest.approx(2), 3)}
    model.masks["hidden"][0] = False
    assert dimensionality(model, batches) == {"hidden": Dimensionality(pytest.approx(1), 3)}


@pytest.mark.parametrize("copies", [1, 10])  # 2 samples are fewer than 3 features, 20 are more
def test_no_variation_is_no_dimension(copies, mlp):
    model = MaskedModel(mlp, Nodes())
    model.masks["hidden"].zero_()
    batches = data(2, (1, 2, 2), 2) * copies
    assert dimensionality(model, batches) == {"hidden": Dimensionality(0.0, 3)}
    model.masks["hidden"].fill_(True)
    constant = [(torch.full((2, 1, 2, 2), 0.1), None)] * copies
    assert dimensionality(model, constant)["hidden"].effective == 0


@pytest.mark.parametrize("samples", [30, 1000])
def test_a_large_mean_does_not_matter(samples, convnet):
    model = MaskedModel(convnet.double(), Weights())
    batches = [(images.double() + 1000, labels) for images, labels in data(samples, (2, 4, 4), 16)]
    assert_close(dimensionality(model, batches), from_eigenvalues(model, batches))


def test_neither_batch_size_nor_memory_matters(convnet, monkeypatch):
    model = MaskedModel(convnet, Weights())
    wanted = dimensionality(model, data(40, (2, 4, 4), 40))
    for memory in (0, 4 * 40 * 64 + 1):
        monkeypatch.setattr(module, "MEMORY", memory)
        found = dimensionality(model, data(40, (2, 4, 4), 7))
        assert list(found) == list(wanted)
        for name in wanted:
            assert found[name].effective == pytest.approx(wanted[name].effective, rel=1e-5)


def test_each_pass_holds_no_more_than_memory(monkeypatch):
    monkeypatch.setattr(module, "MEMORY", 1000)
    sizes = {"a": 20, "b": 5, "c": 10, "d": 1, "e": 30}  # 10 samples: 800, 200, 400, 8 and 1200 bytes
    assert module._passes(10, sizes) == [["a", "b"], ["c", "d"], ["e"]]


def test_the_model_is_left_as_it_was(convnet):
    model = MaskedModel(convnet, Weights())
    state = {key: value.clone() for key, value in model.state_dict().items()}
    dimensionality(model, data(5, (2, 4, 4), 3))
    assert model.training and convnet.bn.training
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert len(convnet.act._forward_hooks) == 0


def test_a_layer_that_is_not_there_is_refused(mlp):
    with pytest.raises(UserError, match="no layer 'head' with an activation; there are hidden"):
        dimensionality(MaskedModel(mlp, Weights()), data(4, (1, 2, 2), 2), ["head"])


def test_no_images_are_refused(mlp):
    with pytest.raises(UserError, match="needs images"):
        dimensionality(MaskedModel(mlp, Weights()), [])


def test_batches_that_run_dry_are_refused(mlp):
    with pytest.raises(UserError, match="same samples"):
        dimensionality(MaskedModel(mlp, Weights()), Draining(data(8, (1, 2, 2), 2)))


class Draining:
    """Batches that give one less each time."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        self.batches = self.batches[:-1]
        return iter(self.batches)
