"""How far a study is: run directories are the only record of it."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from granprune.run.record import read_rows
from granprune.study.resolve import Run


@dataclass(frozen=True)
class State:
    """How far a run is.

    Args:
        done: Whether its result is written.
        step: Optimizer steps made, as of the last evaluation.
        round: The round of that step.
        accuracy: Test accuracy then, 0 to 1; None before the first evaluation.
        seconds: Training time of a finished run.
    """

    done: bool
    step: int = 0
    round: int = 0
    accuracy: float | None = None
    seconds: float | None = None


def state(run: Run) -> State:
    """Read a run's directory."""
    if run.directory.complete:
        result = json.loads(run.directory.result.read_text())
        return State(
            True, run.steps, len(result["rounds"]) - 1, result["test_accuracy"], result["training_seconds"]
        )
    rows = read_rows(run.directory.metrics)
    if not rows:
        return State(False)
    return State(False, rows[-1]["step"], rows[-1]["round"], rows[-1].get("test_accuracy"))


def seconds_left(runs: Sequence[Run], states: Sequence[State], slots: int) -> float | None:
    """An estimate from the runs that are done: seconds a step of the same task and network.

    Args:
        runs: All runs of a study.
        states: Their states.
        slots: How many run at a time.

    Returns:
        None if a task has no finished run to tell from.
    """
    speeds: dict[tuple[str, str], list[float]] = defaultdict(list)
    left: dict[tuple[str, str], int] = defaultdict(int)
    for run, now in zip(runs, states, strict=True):
        kind = run.about["task"], run.about["network"]
        if now.seconds is not None:
            speeds[kind].append(now.seconds / run.steps)
        else:
            left[kind] += run.steps - now.step
    if any(kind not in speeds for kind in left):
        return None
    return sum(steps * fmean(speeds[kind]) for kind, steps in left.items()) / slots


def duration(seconds: float | None) -> str:
    """A time in words, to two units.

    >>> duration(42), duration(3 * 3600 + 125), duration(None)
    ('42 s', '3 h 02 min', 'unknown')
    """
    if seconds is None:
        return "unknown"
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"
