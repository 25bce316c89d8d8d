"""The interactive page: one file with its data and its plotting library inside, for use without network."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from granprune.errors import UserError
from granprune.report.continuum import continuum, line_of
from granprune.report.curves import AXES, Curve, advantage, baseline_of, by_task, dense_accuracy, task_labels
from granprune.report.dimensions import HEAD, dimensions
from granprune.report.drawing import fraction, number
from granprune.report.figures import mean_accuracy
from granprune.report.headline import Entry, best
from granprune.report.latency import Bench
from granprune.report.statistics import Estimate, mean
from granprune.report.text import Trends, notes, trend_sentence


def page(
    table: pd.DataFrame,
    found: Sequence[Curve],
    entries: dict[str, list[Entry]],
    trend: dict[str, Trends],
    bench: Bench | None = None,
) -> str:
    """The page as HTML.

    Names and values reach the document as JSON only, which its script shows as text, never as markup.

    Args:
        table: All runs.
        found: Their curves.
        entries: Headline entries of each target, by the target's words.
        trend: Trends of each target, by task.
        bench: Measured latencies, if there are any.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise UserError("the report's page needs plotly: pip install 'granprune[study]'") from error
    template = (files("granprune.report") / "page.html").read_text()
    data = json.dumps(content(table, found, entries, trend, bench), allow_nan=False)
    return template.replace("/*PLOTLY*/", get_plotlyjs()).replace("/*DATA*/", data.replace("<", "\\u003c"))


def content(
    table: pd.DataFrame,
    found: Sequence[Curve],
    entries: dict[str, list[Entry]],
    trend: dict[str, Trends],
    bench: Bench | None = None,
) -> dict[str, Any]:
    """What the page shows, as plain values."""
    tasks = [task for task, _ in by_task(list(found))]
    dense = {task: mean(dense_accuracy(table, task)) for task in tasks}
    labels = np.array(task_labels(table))
    return {
        "tasks": tasks,
        "axes": list(AXES),
        "notes": {task: notes(table[labels == task]) for task in tasks},
        "dense": {task: estimate and estimate.value for task, estimate in dense.items()},
        "curves": [_curve(curve, list(found)) for curve in found],
        "headlines": [
            {
                "title": f"Where random pruning {words}",
                "rows": [_entry(entry, best(here)) for entry in here],
                "trends": [trend_sentence(task, *one) for task, one in trend[words].items()],
            }
            for words, here in entries.items()
        ],
        "dimensions": {
            task: [[*words, number(size)] for words, size in here] for task, here in dimensions(table).items()
        },
        "dimensions_head": HEAD,
        "sizes": {task: _sizes(granularities) for task, granularities in by_task(list(found))},
        "frontiers": _frontiers(bench, tasks) if bench else [],
    }


def _sizes(granularities: Mapping[str, Sequence[Curve]]) -> list[dict[str, Any]]:
    return [
        {
            "title": f"density {fraction(density)}",
            "lines": [
                {
                    "criterion": name,
                    "points": [
                        {"size": size, "advantage": _numbers(estimate)} for size, estimate in line_of(gains)
                    ],
                    "inverted": gains[0].curve.inverted,
                    "names": [gain.curve.granularity for gain in gains],
                }
                for name, gains in criteria.items()
            ],
        }
        for density, criteria in continuum(granularities).items()
    ]


def _frontiers(bench: Bench, tasks: list[str]) -> list[dict[str, Any]]:
    from granprune.deploy.bench.frontier import frontiers  # takes seconds, for torch

    return [
        {
            "tasks": [task for task in tasks if f"{task} ".startswith(f"{here.task} {here.network} ")],
            "notes": [f"Fastest float32 form of each network on {bench.words}", *filter(None, [here.note])],
            "panels": [
                {
                    "label": panel.label,
                    "lines": [
                        {"granularity": granularity, "criterion": criterion, "points": points}
                        for (granularity, criterion), points in panel.lines.items()
                    ],
                }
                for panel in here.panels
            ],
        }
        for here in frontiers(bench.rows)
    ]


def _curve(curve: Curve, among: list[Curve]) -> dict[str, Any]:
    baseline = baseline_of(curve, among)
    gains = dict(advantage(curve, baseline)) if baseline and baseline is not curve else {}
    places = zip(*(curve.place(axis) for axis in AXES), strict=True)
    return {
        "task": curve.task,
        "granularity": curve.granularity,
        "method": curve.method,
        "criterion": curve.criterion,
        "scope": str(curve.runs["scope"].iloc[0]),
        "baseline": curve.baseline,
        "inverted": curve.inverted,
        "mean": mean_accuracy(curve),
        "points": [
            {
                **dict(zip(AXES, x, strict=True)),
                "accuracy": _numbers(y),
                "advantage": _numbers(gains.get(density)),
            }
            for x, (density, y) in zip(places, curve.accuracy(), strict=True)
        ],
        "runs": [_run(row) for row in curve.runs.to_dict("records")],
    }


def _run(row: dict[str, Any]) -> dict[str, Any]:
    places = {axis: float(row[column]) for axis, column in AXES.items()}
    accuracy = 100 * float(row["test_accuracy"])
    return {
        **places,
        "name": row["name"],
        "command": row["command"],
        "seed": int(row["seed"]),
        "accuracy": accuracy,
    }


def _numbers(estimate: Estimate | None) -> list[float | None] | None:
    return None if estimate is None else [estimate.value, estimate.low, estimate.high]


def _entry(entry: Entry, winners: list[Entry]) -> dict[str, Any]:
    return {
        "task": entry.task,
        "criterion": entry.method,
        "best": entry in winners,
        "cells": [entry.granularity, f"{entry.target:.2f}", number(entry.density, 4), entry.method]
        + [number(entry.accuracy), number(entry.gain)],
    }
