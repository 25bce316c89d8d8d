import pytest
import torch

from granprune.data import Digits
from granprune.deploy.bench import subjects
from granprune.deploy.bench.subjects import of_run, random_masks, random_subjects
from granprune.errors import UserError
from granprune.granularity import Channels, Weights
from granprune.masking import MaskedModel
from granprune.models import DBSN, ResNet20


def test_random_weights_have_the_density_in_each_layer_but_the_stem():
    masks = random_masks(MaskedModel(ResNet20(width=4), Weights()), 0.25)
    assert masks["conv"].all()
    kept = [int(mask.sum()) for name, mask in masks.items() if name != "conv"]
    assert kept == [mask.numel() // 4 for name, mask in masks.items() if name != "conv"]


def test_random_channels_make_a_narrower_network():
    masks = random_masks(MaskedModel(ResNet20(width=4), Channels()), 0.5)
    assert masks["conv"].flatten().tolist() == [True, True, False, False]
    assert masks["blocks.3.conv2"].flatten().tolist() == [True] * 4 + [False] * 4


def test_random_subjects_differ_in_density_only():
    two = random_subjects("DBSN", "Weights", [0.5, 0.05], 3)
    assert [subject.name for subject in two] == ["Weights 0.5", "Weights 0.05"]
    assert two[0].images.shape == (3, 1, 28, 28)
    assert two[0].architecture == two[1].architecture
    weights = [subject.model.weights()["head"] for subject in two]
    assert torch.equal(*weights)
    assert two[1].counts.density == pytest.approx(0.05, abs=1e-3)


@pytest.mark.parametrize(
    ("network", "granularity", "message"),
    [
        ("VGG", "Weights", "--network VGG: possible are ResNet20, DBSN"),
        ("DBSN", "Rows", "--granularity Rows: possible"),
    ],
)
def test_unknown_names_are_refused(network, granularity, message):
    with pytest.raises(UserError, match=message):
        random_subjects(network, granularity, [0.5], 1)


@pytest.mark.parametrize(("criterion", "method"), [("SNIP", "SNIP, Global"), ("Random", "Random")])
def test_a_run_brings_its_accuracy_and_test_images(criterion, method, masked, monkeypatch):
    result = {
        "granularity": "Weights",
        "final_density": 0.4,
        "criterion": criterion,
        "scope": "Global",
        "seed": 3,
        "task": "Digits",
        "name": "a-run",
        "test_accuracy": 0.9,
    }
    model = masked(DBSN(widths=(5,), in_features=64), Weights(), 0.4)
    monkeypatch.setattr(subjects, "read_result", lambda run: result)
    monkeypatch.setattr(subjects, "restore", lambda run, data_dir: (model, Digits(batch_size=32)))
    subject = of_run("a-run", 500)
    found = subject.name, subject.accuracy, subject.criterion
    assert found == (f"Weights 0.4 {method} seed 3", 0.9, method)
    data = Digits(batch_size=500)
    data.setup()
    images = data.test_dataloader().split.batch(torch.arange(357))[0]
    assert len(images) == 357
    assert torch.equal(subject.images, torch.cat([images, images])[:500])
