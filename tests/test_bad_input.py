"""Wrong commands end in one line that says what is wrong, where, and what would be right."""

from pathlib import Path

import pytest

CONFIGS = Path(__file__).parents[1] / "configs"
CRITERIA = """
import torch

from granprune.criteria import Criterion


class NotANumber(Criterion):
    def __call__(self, model, batches, generator):
        return {name: torch.full(mask.shape, torch.nan) for name, mask in model.masks.items()}


class WrongShape(Criterion):
    def __call__(self, model, batches, generator):
        return {name: torch.zeros(3) for name in model.masks}


class Forgetful(Criterion):
    def __call__(self, model, batches, generator):
        pass
"""
FILES = {
    "criteria.py": CRITERIA,
    "empty.yaml": "",
    "list.yaml": "- density\n- 0.5\n",
    "torn.yaml": "pruning: {density: 0.5\nmodel: [",
    "typo.yaml": "pruning:\n  desnity: 0.5\n",
    "words.yaml": "pruning:\n  schedule:\n    class_path: Iterative\n    init_args: {rounds: many}\n",
    "torn/cifar10.safetensors": "not tensors",
    "notes.txt": "some text",
}

# Words after `fit --config small.yaml`, and what the line has to say.
FIT = [
    # names
    ("--model.granularity Kernles", "model.granularity: there is no class Kernles; known are", "Kernels"),
    ("--pruning.criterion SNAP", "pruning.criterion: there is no class SNAP; known are", "SNIP, Statistical"),
    ("--pruning.scope Globl", "pruning.scope: there is no class Globl; known are ByRole", "Global"),
    ("--pruning.schedule Iterativ", "pruning.schedule: there is no class Iterativ", "Iterative"),
    ("--model.network VGG", "model.network: there is no class VGG; known are DBSN, ResNet20"),
    ("--model.optimizer SDG", "model.optimizer: there is no class SDG", "Adam", "SGD"),
    ("--data ImageNet", "data: there is no class ImageNet; known are CIFAR10, CIFAR100, Digits, MNIST"),
    ("--pruning.criterion criteria.Nope", "pruning.criterion", "criteria.Nope", "no attribute 'Nope'"),
    ("--pruning.criterion nowhere.Mine", "pruning.criterion", "nowhere.Mine", "No module named 'nowhere'"),
    ("--trainer.accelerator tpuu", "accelerator='tpuu'", "cpu"),
    ("--pruning.densty 0.5", "there is no option pruning.densty; did you mean pruning.density?"),
    ("--bogus 1", "there is no option bogus; --help lists all"),
    ("--pruning.criterion.num_samples 5", "no option pruning.criterion.num_samples", "Magnitude lists all"),
    ("--model.optimizer.speed 1", "no option model.optimizer.speed; --model.optimizer.help SGD lists all"),
    # ranges
    ("--pruning.density 0", "pruning.density is 0: expected a number >0 and <=1"),
    ("--pruning.density 1.5", "pruning.density is 1.5: expected a number >0 and <=1"),
    ("--pruning.density nan", "pruning.density is nan: expected a number >0 and <=1"),
    ("--pruning.schedule.rounds 0", "pruning.schedule.rounds is 0: expected an integer >0"),
    ("--pruning.schedule.rewind_step -1", "pruning.schedule.rewind_step is -1: expected an integer >=0"),
    ("--pruning.schedule.rewind_step 8", "rewind_step is 8: it must be less than pruning.schedule.steps"),
    ("--pruning.min_components -1", "pruning.min_components is -1: expected an integer >=0"),
    ("--data.batch_size 0", "data.batch_size is 0: expected an integer >0"),
    ("--data.validation_fraction 1.0", "data.validation_fraction is 1.0: expected a number >=0 and <1"),
    ("--data.validation_fraction 0.0001", "holds out 0 of 1440 training images"),
    ("--model.network.widths [12,0]", "model.network.widths is 0: expected an integer >0"),
    ("--model.top_k 11", "model.top_k is 11, but there are 10 classes"),
    ("--model.learning_rate WarmupAndDrops --model.learning_rate.warmup 2", "warmup is 2: expected a number"),
    ("--model.learning_rate WarmupAndDrops --model.learning_rate.drops [0.9,0.1]", "drops", "must ascend"),
    ("--checkpoint.every_steps 0", "checkpoint.every_steps is 0: expected an integer >0"),
    ("--seed_everything -1", "seed_everything is -1: expected an integer >=0 and <4294967296"),
    ("--trainer.accumulate_grad_batches 0", "trainer.accumulate_grad_batches is 0: expected an integer >0"),
    # types
    ("--pruning.density abc", "pruning.density is abc: expected a number"),
    ("--pruning.schedule.rounds two", "pruning.schedule.rounds is two: expected an integer"),
    ("--seed_everything true", "seed_everything is true: expected an integer"),
    ("--model.optimizer.lr fast", "model.optimizer.lr is fast: expected a number"),
    ("--model.compile maybe", "model.compile is maybe: expected true or false"),
    ("--pruning.criterion SNIP --pruning.criterion.reduction sum", "reduction is sum", "per_sample", "batch"),
    ("--trainer.precision 17", "trainer.precision is 17: expected one of 64, 32", "bf16-mixed"),
    ("--trainer.val_check_interval 0.5", "val_check_interval", "integer"),
    ("--model ResNet20", "model is ResNet20: expected a configuration file; options go as --model.NAME"),
    ("--model.optimizer.lr -1", "model.optimizer: Invalid learning rate: -1"),
    # what is missing
    ("--pruning.scope LayerMatched", "pruning.scope.run is missing: LayerMatched needs it"),
    ("--pruning.criterion Inverted", "pruning.criterion.criterion is missing: Inverted needs it"),
    (
        "--pruning.scope LayerMatched --pruning.scope.run gone",
        "there is no checkpoint and no run directory gone",
    ),
    ("--ckpt_path gone.ckpt", "there is no checkpoint and no run directory gone.ckpt"),
    ("--ckpt_path notes.txt", "checkpoint notes.txt is damaged"),
    ("--config gone.yaml", "there is no file", "gone.yaml"),
    ("--config empty.yaml", "empty.yaml: expected options and their values"),
    ("--config list.yaml", "list.yaml: expected options and their values"),
    ("--config torn.yaml", "torn.yaml: not valid YAML", "line 2, column 6"),
    ("--config typo.yaml", "there is no option pruning.desnity; did you mean pruning.density?"),
    ("--config words.yaml", "pruning.schedule.rounds is many: expected an integer"),
    ("--run.root notes.txt", "cannot write to the run directory notes.txt", "Not a directory"),
    # combinations
    ("--pruning.criterion Statistical", "Statistical cannot score granularity Weights; it scores Channels"),
    ("--pruning.criterion Inverted --pruning.criterion.criterion Statistical", "Statistical cannot score"),
    (
        "--model.granularity Kernels",
        "DBSN has no layer to prune at granularity Kernels; possible are Weights",
    ),
    ("--model.network.in_features 63", "DBSN cannot take images of shape (1, 8, 8)"),
    ("--trainer.max_steps 100", "trainer.max_steps is 100, but the schedule", "pruning.schedule.steps"),
    ("--trainer.max_epochs 3", "trainer.max_epochs is 3, but the schedule", "pruning.schedule.steps"),
    ("--trainer.fast_dev_run true", "trainer.fast_dev_run is True, but the schedule"),
    # while it runs
    ("--model.optimizer.lr 3e38", "the training loss is inf at step 1: lower the learning rate"),
    ("--trainer.limit_train_batches 0", "training ended before step 24"),
    ("--pruning.criterion criteria.NotANumber", "criterion NotANumber gives layer hidden.0", "NaN"),
    (
        "--pruning.criterion criteria.WrongShape",
        "WrongShape gives layer hidden.0 scores of shape (3,)",
        "(12, 64)",
    ),
    ("--pruning.criterion criteria.Forgetful", "criterion Forgetful must return a score tensor for each"),
]
RESNET = [
    (
        "--model.granularity Nodes",
        "ResNet20 has no layer to prune at granularity Nodes; possible are Weights",
    ),
    ("--data MNIST", "ResNet20 cannot take images of shape (1, 28, 28)"),
    ("--data.data_dir notes.txt", "no cifar10 data in folder notes.txt: expected cifar10.safetensors"),
    ("--data.data_dir torn", "cannot read torn/cifar10.safetensors", "train_images"),
]
OTHERS = [
    ("fly", "there is no command 'fly'; there are fit, validate, test"),
    ("fit", "model.network, model.granularity, data must be given", "--config FILE"),
    ("fit --config", "--config: expected one argument"),
    ("test --config small.yaml", "there is no checkpoint and no run directory"),
    ("validate --config small.yaml --ckpt_path gone", "there is no checkpoint and no run directory gone"),
    ("test --config small.yaml --report_dimensionality maybe", "report_dimensionality is maybe"),
]
VARIABLES = [
    ({"GRANPRUNE_FIT__PRUNING__DENSITY": "2"}, "pruning.density is 2: expected a number >0 and <=1"),
    ({"GRANPRUNE_FIT__PRUNING__DESNITY": "1"}, "did you mean GRANPRUNE_FIT__PRUNING__DENSITY?"),
    ({"GRANPRUNE_PRUNING__DENSITY": "1"}, "did you mean GRANPRUNE_FIT__PRUNING__DENSITY?"),
    ({"GRANPRUNE_FIT__WANDB__ENABLED": "true", "WANDB_MODE": "on"}, "WANDB_MODE is 'on'", "offline"),
]


@pytest.fixture
def refused(granprune, small, tmp_path):
    """Check that a command ends in one line on stderr which says all of `parts`."""
    for name, text in {**FILES, "small.yaml": small.read_text()}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    def check(words, parts, **environment):
        ended = granprune(*words, **environment)
        assert ended.code not in (0, 75), ended.out
        (line,) = ended.err.splitlines()
        assert line.startswith("granprune: error: ")
        assert all(part in line for part in parts), line

    return check


@pytest.mark.parametrize(("words", "parts"), [(words, parts) for words, *parts in FIT])
def test_fit(refused, words, parts):
    refused(["fit", "--config", "small.yaml", *words.split()], parts)


@pytest.mark.parametrize(("words", "parts"), [(words, parts) for words, *parts in RESNET])
def test_resnet(refused, words, parts):
    base = ["--config", CONFIGS / "resnet20-cifar10.yaml", "--wandb.enabled", "false"]
    refused(["fit", *base, *words.split()], parts)


@pytest.mark.parametrize(("words", "parts"), [(words, parts) for words, *parts in OTHERS])
def test_other_commands(refused, words, parts):
    refused(words.split(), parts)


@pytest.mark.parametrize(("variables", "parts"), [(variables, parts) for variables, *parts in VARIABLES])
def test_environment(refused, tmp_path, variables, parts):
    text = (tmp_path / "small.yaml").read_text().replace("wandb: {enabled: false}", "")
    (tmp_path / "small.yaml").write_text(text.replace("  density: 0.25", ""))
    refused(["fit", "--config", "small.yaml"], parts, **variables)


def test_a_data_folder_without_network(refused, tmp_path):
    """An empty folder and no way to download: the line names the folder and the files expected."""
    (tmp_path / "none").mkdir()
    base = ["--config", CONFIGS / "resnet20-cifar10.yaml", "--wandb.enabled", "false"]
    proxy = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    expected = "no cifar10 data in folder none: expected cifar10.safetensors or cifar-10-batches-py/"
    refused(["fit", *base, "--data.data_dir", "none"], [expected], **proxy)
