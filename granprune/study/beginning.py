"""Dense trainings that several iterative runs share: computed once, then inherited.

Until its first pruning an iterative run does not depend on criterion, scope, density or number of
rounds. It does depend on the granularity: the network computes the same function, but masks on weights
and on activations lead to other memory layouts and so to other rounding.
"""

import json
import signal
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from granprune.run import identity
from granprune.run.checkpoint_io import write_atomically
from granprune.run.directory import RunDirectory
from granprune.study.resolve import Run

STAND_IN = (  # what a beginning has in place of everything that pruning depends on
    "--pruning.criterion=Random",
    "--pruning.scope=Global",
    "--pruning.density=1.0",
    "--pruning.min_components=0",
    "--pruning.schedule.init_args.rounds=1",
    "--trainer.callbacks+=granprune.study.beginning.StopBeforePruning",
    "--wandb.enabled=false",
)


class StopBeforePruning(Callback):
    """Ask the run to save and stop, as a signal from outside would, when its dense round is complete."""

    def on_round_end(self, trainer: Trainer, module: LightningModule, record: Mapping[str, Any]) -> None:
        """Interrupt; the boundary's checkpoint follows at the same step."""
        if record["round"] == 0:
            signal.raise_signal(signal.SIGTERM)


def shared(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs that have a beginning in common, two or more each."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        if _is_iterative(run) and _is_one_process(run):
            groups[_before_pruning(run.config)].append(run)
    return [group for group in groups.values() if len(group) > 1]


def words(run: Run, folder: str) -> list[str]:
    """The `fit` command line of a run's beginning, kept under `folder`."""
    return [*run.words, *STAND_IN, f"--run.root={folder}"]


def length(run: Run) -> int:
    """Steps of the dense round."""
    return run.config["pruning"]["schedule"]["init_args"]["steps"]


def inherit(directory: RunDirectory, beginning: RunDirectory, step: int) -> None:
    """Give a run that has not begun the state in which its beginning ended.

    Args:
        directory: The run's; left alone if it holds a checkpoint or a result.
        beginning: Where the dense round is.
        step: Its length.
    """
    if directory.complete or directory.saved():
        return
    directory.acquire()
    write_atomically(directory.metrics, beginning.metrics.read_bytes())
    # Last, since this is what the run goes on from.
    write_atomically(directory.checkpoint(step), beginning.checkpoint(step).read_bytes())
    directory.release()


def _before_pruning(config: Mapping[str, Any]) -> str:
    """The settings that matter until the first pruning."""
    decisive = identity.decisive(config)
    schedule = config["pruning"]["schedule"]["init_args"]
    decisive["pruning"] = {key: schedule[key] for key in ("steps", "rewind_step")}
    return json.dumps(decisive, sort_keys=True)


def _is_iterative(run: Run) -> bool:
    return run.about["schedule"] == "Iterative"


def _is_one_process(run: Run) -> bool:
    """Several ranks stop where they agree to, which need not be the boundary."""
    return run.config["trainer"]["devices"] in ("auto", "1", 1)
