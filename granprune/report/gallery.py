"""All figures of a report, by the names of their files."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from granprune.report import figures
from granprune.report.continuum import continuum, continuum_figure
from granprune.report.curves import AXES, Curve, by_task, dense_accuracy, task_labels
from granprune.report.latency import Bench
from granprune.report.statistics import mean
from granprune.report.text import notes


def gallery(
    table: pd.DataFrame, found: Sequence[Curve], note: str | None = None, bench: Bench | None = None
) -> dict[str, Figure]:
    """Draw every task: accuracy over density and costs, the advantage, and granularities side by side.

    Without random pruning there is no advantage to draw. With many sizes of a component it is drawn over
    them; with measured latencies, accuracy is drawn over those.

    Args:
        table: All runs.
        found: Their curves.
        note: Printed below every figure, after what the figures say of themselves.
        bench: Measured latencies, if there are any.

    Returns:
        File name without suffix, such as `advantage-mnist-dbsn` -> figure.
    """
    drawn = {}
    labels = np.array(task_labels(table))
    for task, granularities in by_task(list(found)):
        below = _below(table[labels == task], note)
        dense = mean(dense_accuracy(table, task))
        slug = re.sub(r"\W+", "-", task.lower())
        for axis in AXES:
            drawn[f"accuracy-over-{axis.lower()}-{slug}"] = figures.accuracy_figure(
                task, granularities, axis, dense.value if dense else None, below
            )
        if any(_compares(curves) for curves in granularities.values()):
            drawn[f"advantage-{slug}"] = figures.advantage_figure(task, granularities, below)
            drawn[f"matched-{slug}"] = figures.matched_figure(task, granularities, below)
        if panels := continuum(granularities):
            drawn[f"continuum-{slug}"] = continuum_figure(task, panels, below)
    return drawn | (_frontiers(bench, note) if bench else {})


def _compares(curves: Sequence[Curve]) -> bool:
    """Whether there is random pruning and something to compare with it."""
    return len({curve.baseline for curve in curves}) == 2


def _frontiers(bench: Bench, note: str | None) -> dict[str, Figure]:
    from granprune.deploy.bench import frontier  # takes seconds, for torch

    below = "\n".join([f"fastest float32 form of each network on {bench.words}", *([note] if note else [])])
    return frontier.figures(frontier.frontiers(bench.rows), below)


def _below(runs: pd.DataFrame, note: str | None) -> str:
    seeds = runs["seed"].nunique()
    band = f"mean over {seeds} seeds, band: 95 % t interval" if seeds > 1 else "one seed, so no intervals"
    lines = f"{band}; of several scopes the best; dotted: unpruned; dashed: inverted criteria"
    return "\n".join([lines, *notes(runs), *([note] if note else [])])
