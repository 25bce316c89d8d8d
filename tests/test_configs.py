"""Every file under configs/, alone or over a base it is made for, becomes a network, data and a trainer."""

import shlex
import sys
from dataclasses import fields
from itertools import chain
from pathlib import Path

import pytest
import yaml

from granprune.classifier import Classifier
from granprune.cli import PruningCLI
from granprune.study.command import study_parser
from granprune.study.plan import Study

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
BASES = ["quickstart.yaml", "resnet20-cifar10.yaml", "resnet20-cifar100.yaml", "dbsn-mnist.yaml"]
BOTH = ["resnet20-cifar10.yaml", "dbsn-mnist.yaml"]
OVERRIDES = {
    "openlth.yaml": ["resnet20-cifar10.yaml"],
    "prune/at-init.yaml": BOTH,
    "prune/iterative.yaml": BOTH,
    "prune/iterative-channels.yaml": ["resnet20-cifar10.yaml"],
    "prune/iterative-nodes.yaml": ["dbsn-mnist.yaml"],
    "prune/layer-matched.yaml": BOTH,
    "prune/masks-of.yaml": BOTH,
    "prune/one-shot.yaml": BOTH,
}
ALONE = [[base] for base in BASES]
OVER = [[base, override] for override, bases in OVERRIDES.items() for base in bases]
STUDIES = sorted(CONFIGS.glob("studies/*.yaml"))
SWEEPS = sorted(CONFIGS.glob("sweeps/*.yaml"))


class Assembled(PruningCLI):
    """Instantiates what a `fit` command stands for; writes nothing and runs nothing."""

    def _own_directory(self):
        pass

    def _run_subcommand(self, subcommand):
        pass


@pytest.fixture
def assemble(monkeypatch):
    monkeypatch.chdir(ROOT)  # the files name each other from here
    monkeypatch.setattr(sys, "argv", ["granprune"])

    def assembled(words):
        return Assembled(["fit", *words, "--wandb.enabled=false", "--trainer.accelerator=cpu"])

    return assembled


@pytest.mark.parametrize("names", [*ALONE, *OVER], ids=" ".join)
def test_configuration(assemble, names):
    words = list(chain.from_iterable(("--config", f"configs/{name}") for name in names))
    made = assemble(words)
    assert isinstance(made.model, Classifier)
    given = yaml.safe_load((CONFIGS / names[-1]).read_text())
    pruning = made.config_init.fit.pruning
    assert type(pruning.schedule).__name__ == given["pruning"]["schedule"]["class_path"]
    assert made.trainer.max_steps == pruning.schedule.total_steps
    assert type(made.datamodule).__name__.lower() in f"{names[0].replace('quickstart', 'digits')}"
    assert made.model.network.masks


def test_no_file_is_left_out():
    found = {str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml")}
    special = {str(path.relative_to(CONFIGS)) for path in [*STUDIES, *SWEEPS]}
    assert found == {*BASES, *OVERRIDES, *special}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_study(assemble, path):
    """The first and the last of its runs."""
    parser = study_parser()
    study = parser.instantiate_classes(parser.parse_args([f"--config={path}"]))
    commands = study_commands(study)
    for words in commands[0], commands[-1]:
        assert assemble(words).trainer.max_steps > 0


def study_commands(options):
    return Study(**{field.name: options[field.name] for field in fields(Study)}).commands()


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweep(assemble, path):
    """With the first and with the last value of each parameter, as a W&B agent starts it."""
    sweep = yaml.safe_load(path.read_text())
    fixed = [shlex.split(word)[0] for word in sweep["command"] if word.startswith("--")]
    for place in 0, -1:
        drawn = [f"--{name}={value(given, place)}" for name, given in sweep["parameters"].items()]
        assert assemble([*fixed, *drawn]).trainer.max_steps > 0


def value(given, place):
    return given["values"][place] if "values" in given else given["value"]
