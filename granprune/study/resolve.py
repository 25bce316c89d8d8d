"""Which run a `fit` command line stands for, found without running it."""

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console
from rich.progress import track

from granprune.cli import PruningCLI
from granprune.run import identity
from granprune.run.directory import RunDirectory


@dataclass(frozen=True)
class Run:
    """One run of a study.

    Args:
        words: What follows `granprune fit`.
        config: Its resolved configuration.
    """

    words: list[str]
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """Its identity."""
        return identity.run_name(self.config)

    @property
    def directory(self) -> RunDirectory:
        """Where it is or will be."""
        return RunDirectory(Path(self.config["run"]["root"]) / self.name)

    @property
    def command(self) -> str:
        """The command line that makes it."""
        return shlex.join(["granprune", "fit", *self.words])

    @property
    def about(self) -> dict[str, Any]:
        """What it is, in words."""
        return identity.describe(self.config)

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        schedule = self.config["pruning"]["schedule"]
        module, name = schedule["class_path"].rsplit(".", 1)
        return getattr(import_module(module), name)(**schedule["init_args"]).total_steps


class FitParser(PruningCLI):
    """Reads `fit` command lines as the program does, and runs none of them."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = Namespace(subcommand="fit")

    def _set_seed(self) -> None:
        pass

    def before_instantiate_classes(self) -> None:
        pass

    def instantiate_classes(self) -> None:
        pass

    def _run_subcommand(self, subcommand: str) -> None:
        pass

    def resolve(self, words: Sequence[str]) -> Run:
        """The run of one command line.

        Args:
            words: What follows `granprune fit`.

        Raises:
            UserError: The command line is wrong.
        """
        settings = self.parser.parse_args(["fit", *words])["fit"]
        return Run(list(words), json.loads(json.dumps(settings.as_dict(), default=str)))


def resolve(commands: Iterable[Sequence[str]]) -> list[Run]:
    """The runs of many command lines, each run once.

    Raises:
        UserError: A command line is wrong; the message says which.
    """
    parser = FitParser()
    runs = [
        parser.resolve(words)
        for words in track(
            list(commands), "Reading command lines", transient=True, disable=not Console().is_terminal
        )
    ]
    return list({run.name: run for run in runs}.values())
