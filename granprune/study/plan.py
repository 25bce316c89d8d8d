"""What a study consists of, and the `fit` command line of each of its runs. Pure functions."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt

from granprune.errors import UserError

Settings = dict[str, Any]  # dotted option of `fit` -> value; `config` -> one or more configuration files
KEYS = {
    "task": "config",
    "granularity": "model.granularity",
    "criterion": "pruning.criterion",
    "scope": "pruning.scope",
    "schedule": "pruning.schedule",
    "density": "pruning.density",
    "seed": "seed_everything",
}


@dataclass
class Resources:
    """What one run takes.

    Args:
        cpus: CPU cores, and threads of PyTorch.
        gpus: GPUs; with a fraction several runs share one, e.g. four with 0.25.
    """

    cpus: PositiveInt = 1
    gpus: NonNegativeFloat = 0.0


@dataclass
class Grid:
    """A product of axes.

    Args:
        axes: Axes besides those of the study, in the same form.
        exclude: Combinations left out, besides those of the study, in the same form.
    """

    axes: dict[str, Any] = field(default_factory=dict)
    exclude: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Study:
    """A grid of runs.

    Args:
        name: What the study is called: the W&B group and tag of its runs, and their folder.
        base: Configuration files of every run, as after `fit --config`.
        settings: Options of every run, by their dotted names, e.g. `trainer.accelerator: cpu`.
        axes: What varies. An axis is a list of values of one option, or a mapping from a label to
            several settings at once, among them `config` for configuration files. Its name is a
            dotted option of `fit`, a free word if all its values are labelled settings, or one of
            task (configuration files), granularity, criterion, scope, schedule, density, seed.
        exclude: Combinations left out: axis -> one or more of its values or labels.
        grids: Products that the study is the union of; none: the product of `axes`.
        resources: What one run takes.
        retries: How often a run that failed is started again from its last checkpoint.
        out: Folder of the runs' directories; `runs/NAME` if not given.
    """

    name: str
    base: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, Any] = field(default_factory=dict)
    exclude: list[dict[str, Any]] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    resources: Resources = field(default_factory=Resources)
    retries: NonNegativeInt = 3
    out: str | None = None

    @property
    def folder(self) -> str:
        """Where the runs' directories are."""
        return self.out or f"runs/{self.name}"

    def commands(self) -> list[list[str]]:
        """The words after `granprune fit` of every run, without repetitions.

        Raises:
            UserError: An axis or exclusion is not of the form it should have.
        """
        grids = self.grids or [Grid()]
        found = [words for grid in grids for words in self._commands(grid)]
        return [list(words) for words in dict.fromkeys(map(tuple, found))]

    def _commands(self, grid: Grid) -> Iterator[list[str]]:
        axes = {**self.axes, **grid.axes}
        excluded = [*self.exclude, *grid.exclude]
        for settings in product(axes, excluded):
            yield [*arguments([{"config": self.base}, self.settings, *settings]), *self._place()]

    def _place(self) -> list[str]:
        """Where a run is kept and how W&B finds it; none of it is part of what the run is."""
        return [
            f"--run.root={self.folder}",
            f"--wandb.group={self.name}",
            f"--wandb.tags={_text([self.name])}",
        ]


def product(axes: Mapping[str, Any], exclude: Sequence[Mapping[str, Any]]) -> Iterator[list[Settings]]:
    """Every combination of the axes' values that is not excluded: what each axis contributes.

    >>> list(product({"seed": [1, 2], "density": [0.5]}, [{"seed": 2}]))
    [[{'seed_everything': 1}, {'pruning.density': 0.5}]]
    """
    _check_exclusions(axes, exclude)
    choices = [axis_values(name, values) for name, values in axes.items()]
    for combination in itertools.product(*choices):
        labels = {name: label for name, (label, _) in zip(axes, combination, strict=True)}
        if not any(_matches(labels, exclusion) for exclusion in exclude):
            yield [settings for _, settings in combination]


def axis_values(name: str, values: Any) -> list[tuple[str, Settings]]:
    """Each value of an axis as a label and settings.

    >>> axis_values("density", [0.5])
    [('0.5', {'pruning.density': 0.5})]
    """
    if isinstance(values, list):
        return [(_label(value), {KEYS.get(name, name): value}) for value in values]
    if isinstance(values, dict) and all(isinstance(settings, dict) for settings in values.values()):
        return [(str(label), settings) for label, settings in values.items()]
    raise UserError(f"axis {name} is {values}: give a list of values, or a mapping from labels to settings")


def arguments(settings: Sequence[Settings]) -> list[str]:
    """Settings as words of a command line: configuration files first, as they would override.

    >>> arguments([{"pruning.density": 0.5}, {"config": "a.yaml"}])
    ['--config=a.yaml', '--pruning.density=0.5']
    """
    files = [file for part in settings for file in _listed(part.get("config", []))]
    options = [(key, value) for part in settings for key, value in part.items() if key != "config"]
    return [f"--config={file}" for file in files] + [f"--{key}={_text(value)}" for key, value in options]


def _check_exclusions(axes: Mapping[str, Any], exclude: Sequence[Mapping[str, Any]]) -> None:
    """A misspelt exclusion would silently exclude nothing."""
    for exclusion in exclude:
        for name, values in exclusion.items():
            if name not in axes:
                raise UserError(f"exclude names the axis {name}; the axes are {', '.join(axes)}")
            known = [label for label, _ in axis_values(name, axes[name])]
            for value in _listed(values):
                if _label(value) not in known:
                    raise UserError(f"exclude names {name} {value}; its values are {', '.join(known)}")


def _matches(labels: Mapping[str, str], exclusion: Mapping[str, Any]) -> bool:
    return all(labels[name] in map(_label, _listed(values)) for name, values in exclusion.items())


def _label(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
