"""`granprune report`: tables, figures and a page from finished runs."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import NoReturn

import pandas as pd
from jsonargparse import ArgumentParser

from granprune.errors import UserError
from granprune.report import figures
from granprune.report.collect import collect
from granprune.report.curves import AXES, Curve, by_task, curves, dense_accuracy
from granprune.report.headline import headline, trends
from granprune.report.page import page
from granprune.report.statistics import mean
from granprune.report.text import markdown, notes

DESCRIPTION = """Compare finished runs: a table of them (runs.csv), the comparison in words and tables
(report.md), figures (PNG and PDF), and an interactive page that needs no network (report.html)."""


@dataclass
class ReportOptions:
    """What to report.

    Args:
        runs: Run directories, folders that hold some at any depth, or tables (runs.csv) of an earlier report.
        out: Folder that everything is written to.
        drops: Points of test accuracy below the unpruned network at which random pruning is compared
            with the criteria; the first is the headline. The paper compares at 5.
        accuracy: Compare where random pruning reaches this test accuracy in percent instead.
        note: A line that is printed below every figure.
    """

    runs: list[str]
    out: str = "report"
    drops: list[float] = (5.0, 2.0, 10.0)  # type: ignore[assignment]
    accuracy: float | None = None
    note: str | None = None


class OneLineParser(ArgumentParser):
    """Ends a wrong command with one line instead of its usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(message) from ex


def main(words: Sequence[str]) -> int:
    """Run `granprune report`.

    Args:
        words: What follows `report`.
    """
    options = report_parser().parse_args(list(words))
    report(ReportOptions(**{field.name: options[field.name] for field in fields(ReportOptions)}))
    return 0


def report_parser() -> ArgumentParser:
    """The options of `granprune report`."""
    parser = OneLineParser(prog="granprune report", description=DESCRIPTION)
    parser.add_argument(
        "runs", type=str, nargs="+", help="Run directories, folders of runs, or tables of runs."
    )
    parser.add_class_arguments(ReportOptions, skip={"runs"})
    return parser


def report(options: ReportOptions) -> None:
    """Write the whole report."""
    table = collect(options.runs)
    found = curves(table)
    targets = _targets(options)
    entries = {words: headline(table, found, target) for words, target in targets.items()}
    trend = {words: trends(here) for words, here in entries.items()}
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "runs.csv", index=False)
    (out / "report.md").write_text(markdown(table, found, entries, trend))
    drawn = write_figures(table, found, out, options.note)
    (out / "report.html").write_text(page(table, found, entries, trend))
    print(f"{len(table)} runs, {len(drawn)} figures, report.md and report.html in {out}")


def write_figures(table: pd.DataFrame, found: Sequence[Curve], out: Path, note: str | None) -> list[Path]:
    """Every figure of every task, as PNG and PDF."""
    written = []
    for task, granularities in by_task(list(found)):
        seeds = table.loc[table["task"] == task.split()[0], "seed"].nunique()
        below = "\n".join([*_below(table, task, seeds), *([note] if note else [])])
        dense = mean(dense_accuracy(table, task))
        slug = re.sub(r"\W+", "-", task.lower())
        drawn = {
            f"accuracy-over-{axis.lower()}": figures.accuracy_figure(
                task, granularities, axis, dense.value if dense else None, below
            )
            for axis in AXES
        }
        drawn["advantage"] = figures.advantage_figure(task, granularities, below)
        drawn["matched"] = figures.matched_figure(task, granularities, below)
        for name, figure in drawn.items():
            written += figures.save(figure, out / f"{name}-{slug}")
    return written


def _below(table: pd.DataFrame, task: str, seeds: int) -> list[str]:
    band = f"mean over {seeds} seeds, band: 95 % t interval" if seeds > 1 else "one seed, so no intervals"
    lines = f"{band}; of several scopes the best; dotted: unpruned; dashed: inverted criteria"
    return [lines, *notes(table[table["task"] == task.split()[0]])]


def _targets(options: ReportOptions) -> dict[str, Callable[[float], float]]:
    if options.accuracy is not None:
        fixed = options.accuracy
        return {f"leaves {fixed:g} %": lambda dense: fixed}
    return {f"costs {drop:g} points": partial(_less, drop) for drop in options.drops}


def _less(drop: float, dense: float) -> float:
    return dense - drop
