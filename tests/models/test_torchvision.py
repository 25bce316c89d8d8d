import os
import subprocess
import sys

import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import nn
from torchvision import models

from granprune.callback import IterativePruning
from granprune.classifier import Classifier
from granprune.criteria import BatchNormScale, Magnitude, MovementSum, Random, Statistical, SynFlow
from granprune.data import ImageDataModule
from granprune.errors import UserError
from granprune.granularity import Blocks, Channels, Kernels, Nodes, Weights
from granprune.masking import MaskedModel
from granprune.models import Torchvision
from granprune.run.checkpoint import Checkpointing
from granprune.schedule import FineTune, Gradual, Iterative, LearningRateRewinding

NETWORKS = {
    "resnet18": {},
    "resnet50": {},
    "vgg16_bn": {},
    "mobilenet_v2": {"options": {"width_mult": 0.25}},
}
GRANULARITIES = [Weights(), Kernels(), Blocks(1, 4, "full", "full"), Channels()]


class Synthetic(ImageDataModule):
    """Eight random 32x32 images of three classes."""

    name = "synthetic"
    num_classes = 3
    image_shape = (3, 32, 32)
    mean = std = (0.5, 0.5, 0.5)
    stored = False

    def fetch(self):
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, (8, 3, 32, 32), generator=generator, dtype=torch.uint8)
        labels = torch.arange(8) % 3
        return {
            f"{part}_{k}": v
            for part in ("train", "test")
            for k, v in (("images", images), ("labels", labels))
        }


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(name, **more):
    torch.manual_seed(0)
    return Torchvision(3, name, cifar_stem=True, **NETWORKS[name], **more)


def fit(network, granularity, pruning, *callbacks, resume=None, batch_size=4):
    seed_everything(5)
    module = Classifier(
        network=network, granularity=granularity, optimizer=lambda p: torch.optim.SGD(p, 0.01, 0.9)
    )
    trainer = Trainer(
        max_steps=pruning.schedule.total_steps,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=[pruning, Checkpointing(), *callbacks],
    )
    trainer.fit(module, datamodule=Synthetic(batch_size=batch_size), ckpt_path=resume, weights_only=True)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("granularity", GRANULARITIES, ids=lambda kind: type(kind).__name__)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_prunes_a_round_at_every_granularity(name, granularity):
    pruning = IterativePruning(Iterative(rounds=1, steps=1), Magnitude(), density=0.5)
    model = fit(build(name), granularity, pruning, batch_size=2).network
    total = sum(mask.numel() for mask in model.masks.values())
    assert sum(int(mask.sum()) for mask in model.masks.values()) == total - round(total / 2)
    if isinstance(granularity, Channels):
        with model.observe() as seen:
            model.eval()(torch.randn(1, 3, 32, 32))
        assert all((seen[layer][0, ~mask.flatten()] == 0).all() for layer, mask in model.masks.items())


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2"])
def test_nodes_are_refused_where_only_the_classifier_is_linear(name):
    with pytest.raises(
        UserError, match="no layer to prune at granularity Nodes; possible are Weights, Kernels, Channels"
    ):
        MaskedModel(build(name), Nodes())


def test_nodes_of_a_classifier_of_several_layers():
    network = Torchvision(3, "alexnet")
    model = MaskedModel(network, Nodes())
    assert list(model.masks) == ["network.classifier.1", "network.classifier.4"]


@pytest.mark.parametrize(
    "name, layers, ungated", [("resnet18", 21, 4), ("resnet50", 54, 5), ("mobilenet_v2", 53, 1)]
)
def test_what_is_prunable(name, layers, ungated):
    found = build(name).prunable_layers()
    assert len(found) == layers
    assert sum(layer.gate is None for layer in found) == ungated  # shortcuts and the classifier
    assert sum(layer.norm is None for layer in found) == 1
    assert len({layer.gate for layer in found if layer.gate}) == layers - ungated


def test_the_forward_pass_is_torchvisions():
    torch.manual_seed(0)
    wanted = models.mobilenet_v2(num_classes=3, width_mult=0.25).eval()
    torch.manual_seed(0)
    found = Torchvision(3, "mobilenet_v2", options={"width_mult": 0.25}).eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(found(images), wanted(images))


def test_a_depthwise_kernel_and_its_channel_silence_the_same_convolution():
    name = "network.features.1.conv.0.0"  # the first depthwise convolution
    kernels, channels = (MaskedModel(build("mobilenet_v2"), kind).eval() for kind in (Kernels(), Channels()))
    depthwise = kernels.module(name)
    assert isinstance(depthwise, nn.Conv2d) and depthwise.groups == depthwise.out_channels
    kernels.masks[name][3] = False
    channels.masks[name][3] = False
    outputs = []
    for model in (kernels, channels):
        gate = channels.layers[name].gate
        model.network.get_submodule(gate).register_forward_hook(lambda m, i, o: outputs.append(o))
        model(torch.ones(1, 3, 32, 32))
    assert (outputs[1][:, 3] == 0).all()
    assert outputs[0][:, 3].unique().numel() == 1  # normalisation makes a constant of it


def test_stems_for_small_images():
    assert build("resnet18").network.conv1.stride == (1, 1)
    assert isinstance(build("vgg16_bn").network.classifier, nn.Linear)
    seen = []
    network = build("mobilenet_v2")
    network.network.features.get_submodule("18").register_forward_hook(lambda m, i, o: seen.append(o.shape))
    network.network.get_submodule("features.18.0").register_forward_hook(lambda m, i, o: seen.append(o.shape))
    network.eval()(torch.zeros(1, 3, 32, 32))
    assert seen[-1][2:] == (4, 4)


def test_wrong_names_are_refused():
    with pytest.raises(UserError, match="torchvision has no 'resnet20'; it has alexnet,"):
        Torchvision(3, "resnet20")
    with pytest.raises(UserError, match="squeezenet1_0 has no form for 32x32 images"):
        Torchvision(3, "squeezenet1_0", cifar_stem=True)
    with pytest.raises(UserError, match="cannot trace GoogLeNet: its forward differs between training and"):
        Torchvision(3, "googlenet", options={"init_weights": False})


class SaveAt(Callback):
    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


SETTINGS = {
    "movement, rewound": (Iterative(2, 3), MovementSum, Weights()),
    "movement, gradual": (Gradual(rounds=3, every=2, steps=8), MovementSum, Blocks(1, 4, 2, 2)),
    "synflow": (FineTune(4, 4, rate=0.1), lambda: SynFlow(passes=5), Blocks(1, 4, 2, 2)),
    "statistical, rate rewound": (LearningRateRewinding(2, 3), Statistical, Channels()),
    "scale": (LearningRateRewinding(2, 3, rewind_step=1), BatchNormScale, Channels()),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", SETTINGS)
@pytest.mark.parametrize("step", [2, 4, 5])
def test_resuming_is_exact(case, step, tmp_path):
    schedule, criterion, granularity = SETTINGS[case]

    def run(*callbacks, resume=None):
        pruning = IterativePruning(schedule, criterion(), density=0.3)
        return fit(build("mobilenet_v2"), granularity, pruning, *callbacks, resume=resume).state_dict()

    wanted = run(SaveAt(step, tmp_path / "at.ckpt"))
    found = run(resume=tmp_path / "at.ckpt")
    assert wanted.keys() == found.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert any(key.endswith(".mask") and not value.all() for key, value in wanted.items())


@pytest.mark.slow
def test_two_processes_prune_alike(tmp_path):
    config = {
        "seed_everything": 1,
        "model": {
            "network": {
                "class_path": "Torchvision",
                "init_args": {"name": "mobilenet_v2", "cifar_stem": True, "options": {"width_mult": 0.25}},
            },
            "granularity": {
                "class_path": "Blocks",
                "init_args": {"inputs": 4, "height": 2, "width": 2},
            },
        },
        "data": {"class_path": "synthetic.Synthetic", "init_args": {"batch_size": 4}},
        "pruning": {
            "schedule": {"class_path": "Gradual", "init_args": {"rounds": 2, "every": 2, "steps": 6}},
            "criterion": "MovementSum",
            "scope": "ERK",
            "density": 0.25,
        },
        "trainer": {"accelerator": "cpu", "devices": 2, "strategy": "ddp", "enable_progress_bar": False},
        "wandb": {"enabled": False},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    source = open(__file__).read()
    start, end = source.index("class Synthetic"), source.index("@pytest.fixture(autouse=True)")
    header = "import torch\nfrom granprune.data import ImageDataModule\n\n\n"
    (tmp_path / "synthetic.py").write_text(header + source[start:end])
    command = [sys.executable, "-m", "granprune", "fit", "--config", "config.yaml"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (result,) = tmp_path.glob("runs/*/result.json")
    rounds = yaml.safe_load(result.read_text())["rounds"]
    total = rounds[-1]["components"]
    kept = [total - round((1 - density) * total) for density in (1, 0.25 + 0.75 / 8, 0.25)]
    assert [entry["kept"] for entry in rounds] == kept


def test_synflow_prunes_in_passes_and_ends_at_the_scheduled_count():
    passes = []

    class Counted(SynFlow):
        def __call__(self, model, *rest):
            passes.append(sum(int(mask.sum()) for mask in model.masks.values()))
            return super().__call__(model, *rest)

    pruning = IterativePruning(FineTune(1, 1), Counted(passes=4), density=0.1)
    model = fit(build("mobilenet_v2"), Weights(), pruning, batch_size=2).network
    total = sum(mask.numel() for mask in model.masks.values())
    wanted = [total - round((1 - 0.1 ** (k / 4)) * total) for k in range(5)]
    assert [*passes, sum(int(mask.sum()) for mask in model.masks.values())] == wanted
    assert Random().passes == 1


def test_kernels_of_depthwise_convolutions_are_whole_filters_which_movement_cannot_score():
    model = MaskedModel(build("mobilenet_v2"), Kernels())
    with pytest.raises(UserError, match=r"whole filters, as of layer network\.features\.1\.conv\.0\.0"):
        MovementSum().check(model)
