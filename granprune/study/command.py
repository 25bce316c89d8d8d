"""`granprune study`: many runs by one command."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from jsonargparse.typing import PositiveInt
from rich.console import Console

from granprune.parser import OneLineParser, with_values
from granprune.study import beginning, cluster
from granprune.study.live import StudyView
from granprune.study.plan import Study
from granprune.study.resolve import Run, resolve
from granprune.study.state import duration, seconds_left, state

DESCRIPTION = """Make all runs of a study, several at a time, on Ray. Runs that are done are not made again,
and runs that were cut off go on; start the same command again after any interruption."""
FLAGS = {"--dry_run", "--list", "--dashboard"}


@dataclass
class RayOptions:
    """Where the runs are made.

    Args:
        address: Address of a Ray cluster, e.g. `auto` on one of its nodes; all nodes must see the
            same files at the same paths. If not given, Ray is started for this study, reachable from
            this machine only.
        cpus: Cores that a Ray started for this study may use; all if not given.
        dashboard: Whether a Ray started for this study serves its dashboard, to this machine only.
    """

    address: str | None = None
    cpus: PositiveInt | None = None
    dashboard: bool = False


def main(words: Sequence[str]) -> int:
    """Run `granprune study`.

    Args:
        words: What follows `study`.

    Returns:
        0 if every run of the study is done, else 1.
    """
    parser = study_parser()
    options = parser.instantiate_classes(parser.parse_args(with_values(words, FLAGS)))
    study = _filled(Study, options)
    runs = resolve(study.commands())
    if options.dry_run:
        print_plan(study, runs, options.list)
        return 0
    return run_study(study, runs, _filled(RayOptions, options))


def study_parser() -> OneLineParser:
    """The options of `granprune study`: those of a study, and how to run it."""
    parser = OneLineParser(prog="granprune study", description=DESCRIPTION)
    parser.add_argument("--config", action="config", help="A study file, e.g. configs/studies/smoke.yaml.")
    parser.add_class_arguments(Study)
    parser.add_class_arguments(RayOptions)
    parser.add_argument(
        "--dry_run",
        type=bool,
        default=False,
        help="Only tell how many runs there are, are done, and take how long.",
    )
    parser.add_argument(
        "--list", type=bool, default=False, help="With --dry_run, also print every command line."
    )
    return parser


def print_plan(study: Study, runs: Sequence[Run], every: bool) -> None:
    """Say what a study consists of and how far it is."""
    states = [state(run) for run in runs]
    if every:
        for run in runs:
            print(run.command)
    done = sum(now.done for now in states)
    left = seconds_left(runs, states, _slots(study))
    saved = sum((len(group) - 1) * beginning.length(group[0]) for group in beginning.shared(runs))
    total = sum(run.steps for run in runs)
    print(f"study {study.name}: {len(runs)} runs in {study.folder}, {done} done, {len(runs) - done} to make")
    print(f"optimizer steps: {total:,}, of which shared beginnings save {saved:,} ({saved / total:.0%})")
    print(f"time left on this machine, {_slots(study)} at a time: {_estimate(left)}")


def run_study(study: Study, runs: Sequence[Run], options: RayOptions) -> int:
    """Make the runs that are not done, and follow them to their end."""
    console = Console()
    todo = [run for run in runs if not state(run).done]
    console.print(f"study {study.name}: {len(runs)} runs, {len(runs) - len(todo)} done", highlight=False)
    if not todo:
        return 0
    view = StudyView(runs, console)
    with cluster.connected(options.address, options.cpus, options.dashboard), view:
        follow(cluster.submit(study, todo), view)
    console.print(f"{view.summary()}; everything is in {study.folder}", highlight=False, soft_wrap=True)
    return 1 if view.failures else 0


def follow(pending: dict[Any, Run], view: StudyView) -> None:
    """Show runs until all have ended; on an interrupt they save and stop."""
    try:
        while pending:
            ended = cluster.wait(list(pending))
            view.update({pending.pop(reference).name: error for reference, error in ended.items()})
    except KeyboardInterrupt:
        view.console.print("stopping: runs finish their step and save", highlight=False)
        cluster.cancel(list(pending))
        raise


def _estimate(left: float | None) -> str:
    return "unknown until a run of each task is done" if left is None else f"about {duration(left)}"


def _slots(study: Study) -> int:
    """How many runs this machine has room for."""
    import torch

    slots = (os.cpu_count() or 1) // study.resources.cpus
    if study.resources.gpus:
        slots = min(slots, int(torch.cuda.device_count() / study.resources.gpus))
    return max(1, slots)


def _filled(kind: Any, options: Any) -> Any:
    return kind(**{field.name: options[field.name] for field in fields(kind)})
