"""Under irregular masks, compared with the masked network itself."""

import copy
import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from granprune.granularity import Channels, Nodes, Weights
from granprune.masking import MaskedModel
from granprune.models import DBSN, ResNet20
from granprune.shrink import Shrunk, can_shrink

CASES = [
    (lambda: ResNet20(width=6), Channels, (3, 32, 32)),
    (lambda: DBSN(widths=(20, 15, 10), in_features=16), Nodes, (1, 4, 4)),
]
STATISTICS = "running_mean", "running_var", "num_batches_tracked"


def twins(network, granularity, density, seed):
    """The same masked model twice, the second one with a smaller stand-in."""
    models = []
    for _ in range(2):
        torch.manual_seed(seed)
        model = MaskedModel(network(), granularity()).to(torch.float64, memory_format=torch.channels_last)
        model.set_masks({name: torch.rand(mask.shape) < density for name, mask in model.masks.items()})
        models.append(model)
    models[1].stand_in = Shrunk(models[1]).forward
    return models


@pytest.mark.parametrize("network, granularity, shape", CASES, ids=["ResNet20", "DBSN"])
@pytest.mark.parametrize("density", [0, 0.1, 0.4, 0.9, 1])
@pytest.mark.parametrize("seed", range(2))
def test_training_is_the_same(network, granularity, shape, density, seed):
    """Momentum and weight decay move pruned parameters too, at a learning rate that changes."""
    models = twins(network, granularity, density, seed)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01) for m in models]
    for step in range(4):
        images, labels = torch.randn(8, *shape, dtype=torch.float64), torch.randint(10, (8,))
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    masked, shrunk = models
    for (name, mine), theirs in zip(shrunk.named_parameters(), masked.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, msg=name)
        torch.testing.assert_close(mine.grad, theirs.grad, msg=name)
    images = torch.randn(8, *shape, dtype=torch.float64)
    torch.testing.assert_close(shrunk.eval()(images), masked.eval()(images))


@pytest.mark.parametrize(
    "layer", ["conv", "blocks.0.conv1", "blocks.1.conv2", "blocks.3.conv2", "blocks.8.conv2"]
)
def test_a_layer_without_any_channel_left_trains_the_same(layer):
    models = twins(*CASES[0][:2], density=0.7, seed=0)
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    for model in models:
        model.set_masks({name: mask & (name != layer) for name, mask in model.masks.items()})
    models[1].stand_in = Shrunk(models[1]).forward
    gradients = [torch.autograd.grad(m(images).square().sum(), list(m.parameters())) for m in models]
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_statistics_of_kept_channels_are_the_whole_networks():
    masked, shrunk = twins(*CASES[0][:2], density=0.5, seed=3)
    images = torch.randn(8, 3, 32, 32, dtype=torch.float64)
    for model in masked, shrunk:
        model(images)
    for name, mask in masked.masks.items():
        norm = masked.layers[name].norm
        for key in STATISTICS:
            mine, theirs = (getattr(m.network.get_submodule(norm), key) for m in (shrunk, masked))
            kept = mask.flatten() if mine.ndim else ...
            torch.testing.assert_close(mine[kept], theirs[kept], msg=f"{norm} {key}")


def test_less_is_computed():
    """The second layer of the MLP, by hand: 2 of 3 nodes that read 1 of 4."""
    torch.manual_seed(0)
    model = MaskedModel(DBSN(widths=(4, 3), in_features=2), Nodes())
    model.set_masks({"hidden.0": torch.tensor([0, 1, 0, 0]), "hidden.1": torch.tensor([1, 0, 1])})
    shapes = []
    for view in Shrunk(model).network.modules():
        if hasattr(view, "columns"):
            shapes.append(tuple(view.weight.shape))
    assert shapes == [(1, 2), (2, 1), (10, 2)]


def test_state_and_parameters_stay_those_of_the_whole_network():
    masked, shrunk = twins(*CASES[0][:2], density=0.5, seed=0)
    assert list(shrunk.state_dict()) == list(masked.state_dict())
    assert len(list(shrunk.parameters())) == len(list(masked.parameters()))
    assert copy.deepcopy(shrunk).stand_in is None, "a copy's stand-in would train the original"


def test_only_training_goes_through_the_stand_in():
    _, shrunk = twins(*CASES[0][:2], density=0.5, seed=0)
    shrunk.stand_in = lambda x: "small"
    images = torch.zeros(2, 3, 32, 32, dtype=torch.float64)
    assert shrunk(images) == "small"
    assert shrunk.eval()(images).shape == (2, 10)


def test_which_networks_have_a_stand_in(convnet):
    assert can_shrink(MaskedModel(ResNet20(width=2), Channels()))
    assert can_shrink(MaskedModel(DBSN(widths=(3,), in_features=4), Nodes()))
    assert not can_shrink(MaskedModel(ResNet20(width=2), Weights()))
    assert not can_shrink(MaskedModel(convnet, Channels()))
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(MaskedModel(ResNet20(width=2), Channels()))
    assert not can_shrink(synchronised)


@pytest.mark.parametrize(
    "options",
    [
        ["--model.granularity=Nodes"],
        [
            "--model.network=ResNet20",
            "--model.network.init_args.width=4",
            "--model.network.init_args.in_channels=1",
            "--model.granularity=Channels",
            "--model.optimizer.init_args.lr=0.005",
        ],
    ],
    ids=["DBSN", "ResNet20"],
)
def test_runs_end_alike_with_and_without(options, granprune, small, tmp_path):
    results = []
    for shrink in "true", "false":
        root = tmp_path / shrink
        more = ["--pruning.scope=Layerwise", f"--model.shrink={shrink}", f"--run.root={root}"]
        assert granprune("fit", f"--config={small}", *options, *more).code == 0
        (result,) = root.glob("*/result.json")
        results.append(json.loads(result.read_text()))
    on, off = results
    assert on["masks_sha256"] == off["masks_sha256"]
    assert on["final_density"] < 0.3
    assert on["test_accuracy"] == pytest.approx(off["test_accuracy"], abs=1.5 / 357)
