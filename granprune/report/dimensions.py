"""Effective dimensions of the activations, where runs have recorded them."""

import pandas as pd

from granprune.report.curves import granularity_rank, label
from granprune.report.drawing import fraction
from granprune.report.statistics import Estimate, mean

HEAD = ["granularity", "criterion, scope", "density", "effective dimensions, mean over layers"]


def dimensions(table: pd.DataFrame) -> dict[str, list[tuple[list[str], Estimate]]]:
    """What was measured of each method and density, over the seeds; unpruned networks come first.

    Args:
        table: All runs; `dimensions` is missing where it was not measured.

    Returns:
        Task -> the first three columns of `HEAD` and the last one.
    """
    runs = label(table)
    runs.loc[runs["schedule"] == "Never", "method"] = "unpruned"
    known = runs[runs["dimensions"].notna()]
    groups = known.groupby(["task_label", "granularity", "method", "density"])["dimensions"]
    found: dict[str, list[tuple[list[str], Estimate]]] = {}
    for key in sorted(groups.groups, key=_order):
        task, granularity, method, density = key
        estimate = mean(groups.get_group(key))
        assert estimate is not None
        found.setdefault(task, []).append(([granularity, method, fraction(density)], estimate))
    return found


def _order(key: tuple[str, str, str, float]) -> tuple:
    task, granularity, method, density = key
    return task, granularity_rank(granularity), method != "unpruned", method, -density
