"""The report in words and tables: Markdown."""

from collections.abc import Sequence

import pandas as pd

from granprune.report import continuum, latency
from granprune.report.curves import Curve, by_task, dense_accuracy
from granprune.report.dimensions import HEAD, dimensions
from granprune.report.drawing import fraction, number
from granprune.report.headline import Entry, best
from granprune.report.latency import Bench
from granprune.report.statistics import LEVEL, Trend, mean

Trends = dict[str, tuple[list[str], Trend]]  # task -> granularities from fine to coarse, test


def markdown(
    table: pd.DataFrame,
    found: Sequence[Curve],
    entries: dict[str, list[Entry]],
    trend: dict[str, Trends],
    bench: Bench | None = None,
) -> str:
    """The report: what was run, the headline table and its test, all means, what lies in the folder.

    Args:
        table: All runs.
        found: Their curves.
        entries: Headline entries of each target, by the target's words.
        trend: Trends of each target, by task.
        bench: Measured latencies, if there are any.
    """
    parts = ["# Report", _extent(table, found)]
    for words, here in entries.items():
        parts += [f"## Where random pruning {words}", headline_table(here), _trends(trend[words])]
    parts += ["## Mean test accuracy (%)", *_means(found)]
    if sizes := continuum.rows(found):
        parts += ["## Advantage by size of a component", grid(continuum.HEAD, sizes)]
    if measured := dimensions(table):
        rows = [[task, *words, number(size)] for task, here in measured.items() for words, size in here]
        parts += ["## Effective dimensions", grid(["task", *HEAD], rows)]
    if bench:
        parts += ["## Latency", f"Measured on {escape(bench.words)}.", grid(latency.HEAD, bench.fastest())]
    return "\n\n".join(part for part in parts if part) + "\n"


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""A Markdown table; names are escaped.

    >>> print(grid(["a"], [["x|y"]]))
    | a |
    | --- |
    | x\|y |
    """
    lines = [head, ["---"] * len(head), *[[escape(cell) for cell in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape(text: str) -> str:
    """Text that Markdown shows as it is."""
    for character in "\\|<>*`[]":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")


def trend_sentence(task: str, granularities: Sequence[str], trend: Trend) -> str:
    """The test of the advantage's fall from fine to coarse granularities, in a sentence."""
    if trend.p is None:
        test = "one seed has a value for each, so no test"
    else:
        test = f"{trend.blocks} seeds, paired; p = {trend.p:.3g}, exact permutation test, one-sided"
    return (
        f"{task}: from {' to '.join(granularities).lower()} the best criterion's advantage changes by "
        f"{number(trend.slope)} points at each step ({test})."
    )


def _extent(table: pd.DataFrame, found: Sequence[Curve]) -> str:
    lines = [
        f"{len(table)} runs, {table['training_seconds'].sum() / 3600:.1f} hours of training, "
        f"{table['steps'].sum():,} optimizer steps (those of shared beginnings counted for every run).",
        f"Intervals are {LEVEL:.0%}: Student's t over seeds for means, bootstrap over seeds for "
        f"interpolated values (too narrow with two or three seeds); with one seed there is none.",
    ]
    for task, _ in by_task(list(found)):
        dense = mean(dense_accuracy(table, task))
        if dense:
            lines.append(f"{escape(task)}, unpruned: {number(dense)} %.")
    return "\n\n".join([*lines, *notes(table)])


def notes(table: pd.DataFrame) -> list[str]:
    """What data sets say about their images."""
    known = table[["task", "data"]].dropna().drop_duplicates()
    return [f"{row.task}: {row.data}" for row in known.itertuples()]


def headline_table(entries: Sequence[Entry]) -> str:
    """What each method reaches where random pruning reaches a target, as a Markdown table."""
    if not entries:
        return "No random baseline crosses that accuracy."
    winners = best(entries)
    head = [
        "task",
        "granularity",
        "random reaches",
        "at density",
        "criterion, scope",
        "its accuracy",
        "advantage",
    ]
    rows = [
        [
            entry.task,
            entry.granularity,
            f"{entry.target:.2f}",
            number(entry.density, 4),
            f"{entry.method}{' (best)' if entry in winners else ''}",
            number(entry.accuracy),
            number(entry.gain),
        ]
        for entry in entries
    ]
    return grid(head, rows)


def _trends(found: Trends) -> str:
    return "\n\n".join(escape(trend_sentence(task, *trend)) for task, trend in found.items())


def _means(found: Sequence[Curve]) -> list[str]:
    parts = []
    for task, granularities in by_task(list(found)):
        for name, curves in granularities.items():
            densities = sorted({density for curve in curves for density, _ in curve.accuracy()}, reverse=True)
            rows = [[c.method, *(number(dict(c.accuracy()).get(d)) for d in densities)] for c in curves]
            parts += [
                f"### {escape(task)}, {escape(name)}",
                grid(["density", *map(fraction, densities)], rows),
            ]
    return parts
