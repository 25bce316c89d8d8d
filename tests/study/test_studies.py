"""The studies and W&B sweeps that are shipped."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from granprune.study import beginning
from granprune.study.command import study_parser
from granprune.study.plan import Study
from granprune.study.resolve import Run, resolve

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "configs" / "studies").glob("*.yaml"))
SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))
FEW = {"density": [0.5], "seed": [1]}  # of axes that every run has


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def shipped(name: str) -> Study:
    options = study_parser().instantiate_classes(
        study_parser().parse_args(["--config", f"configs/studies/{name}.yaml"])
    )
    return Study(options.name, options.base, options.settings, options.axes, options.exclude, options.grids)


def fewer(study: Study) -> list[Run]:
    """The runs of one density and seed: they differ in everything else."""
    study.axes |= FEW
    for grid in study.grids:
        grid.axes |= {name: values for name, values in FEW.items() if name in grid.axes}
    return resolve(study.commands())


def about(runs: list[Run], *columns: str) -> set[tuple[str, ...]]:
    return {tuple(run.about[column] for column in columns) for run in runs}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_command_line_of_a_study_is_right(path: Path) -> None:
    runs = fewer(shipped(path.stem))
    assert runs and all(run.config["wandb"]["group"] == path.stem for run in runs)
    assert all(run.config["wandb"]["tags"] == [path.stem] for run in runs)


def test_paper_study_is_the_paper_grid() -> None:
    study = shipped("paper")
    assert study.axes["density"] == [2.0**-k for k in range(1, 7)] and study.axes["seed"] == [1, 2, 3]
    runs = fewer(study)
    assert about(runs, "task") == {("CIFAR10",), ("CIFAR100",), ("MNIST",)}
    assert about(runs, "task", "granularity") >= {
        ("CIFAR10", "Kernels"),
        ("MNIST", "Nodes"),
        ("CIFAR100", "Channels"),
    }
    criteria = {"Random", "Magnitude", "SNIP", "Statistical"}
    assert about(runs, "criterion") == {(c,) for c in criteria} | {
        (f"Inverted.{c}",) for c in criteria - {"Random"}
    }
    for (criterion,) in about(runs, "criterion"):
        here = {run.about["granularity"] for run in runs if run.about["criterion"] == criterion}
        on_units = {"Channels", "Nodes"}
        assert here == (on_units if criterion.endswith("Statistical") else on_units | {"Weights", "Kernels"})
    iterative = [run for run in runs if run.about["schedule"] == "Iterative"]
    assert {run.steps for run in iterative} == {180_000} and {run.steps for run in runs} == {30_000, 180_000}
    assert all(run.about["criterion"] == "Random" for run in runs if run not in iterative)
    assert len(beginning.shared(runs)) == 8  # of each task and granularity


def test_mini_study_compares_every_granularity_with_random() -> None:
    runs = resolve(shipped("mini").commands())
    for task, granularity in about(runs, "task", "granularity"):
        here = [run for run in runs if (run.about["task"], run.about["granularity"]) == (task, granularity)]
        densities = {run.about["density"] for run in here}
        assert len(densities) >= 3 and len({run.about["seed"] for run in here}) >= 2
        for density in densities:
            methods = about([run for run in here if run.about["density"] == density], "criterion", "scope")
            assert ("Random", "Layerwise") in methods and ("Magnitude", "Layerwise") in methods
    assert len(about(runs, "task", "granularity")) == 5


def test_sweeps_are_the_paper_study() -> None:
    runs = resolve(words for path in SWEEPS for words in sweep_commands(path))
    assert {run.name for run in runs} == {run.name for run in fewer(shipped("paper"))}
    assert all(run.config["wandb"]["group"] == "paper" for run in runs)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweep_has_the_densities_and_seeds_of_the_study(path: Path) -> None:
    sweep, study = yaml.safe_load(path.read_text()), shipped("paper")
    assert sweep["method"] == "grid" and sweep["program"] == "granprune"
    assert sweep["parameters"]["pruning.density"]["values"] == study.axes["density"]
    assert sweep["parameters"]["seed_everything"]["values"] == study.axes["seed"]


def sweep_commands(path: Path) -> Iterator[list[str]]:
    """What follows `granprune fit` in the command lines that W&B builds of a sweep, few of them."""
    sweep = yaml.safe_load(path.read_text())
    values = {name: parameter["values"] for name, parameter in sweep["parameters"].items()}
    values |= {"pruning.density": FEW["density"], "seed_everything": FEW["seed"]}
    command = sweep["command"]
    assert command[:3] == ["${env}", "${program}", "fit"] and command[-1] == "${args}"
    for combination in itertools.product(*values.values()):
        given = {name: {"value": value} for name, value in zip(values, combination, strict=True)}
        yield [*command[3:-1], *create_sweep_command_args({"args": given})["args"]]
