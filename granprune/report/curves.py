"""Runs grouped into methods, and methods into curves over density."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from granprune.report.statistics import Estimate, mean

FINE_TO_COARSE = ["Weights", "Kernels", "Channels", "Nodes"]
AXES = {  # x-axis -> column
    "density": "density",
    "parameters": "kept_parameters",
    "MACs": "effective_macs",
}


@dataclass(frozen=True)
class Curve:
    """One method at one granularity of one task.

    Args:
        task: Task and network, and the protocol if there are several.
        granularity: What one mask entry removes.
        method: How components are chosen: criterion, scope and, if unusual, schedule.
        criterion: As in the table.
        baseline: Whether this is random pruning at initialization.
        runs: Its runs.
        seeds: Test accuracy in percent: a row a seed, a column a density, NaN where there is no run.
    """

    task: str
    granularity: str
    method: str
    criterion: str
    baseline: bool
    runs: pd.DataFrame
    seeds: pd.DataFrame

    @property
    def inverted(self) -> bool:
        """Whether the criterion keeps what it should remove, as a control."""
        return self.criterion.startswith("Inverted")

    def accuracy(self) -> list[tuple[float, Estimate]]:
        """Density -> accuracy over the seeds, from sparse to dense."""
        return points(self.seeds)

    def place(self, axis: str) -> list[float]:
        """Where each density lies on an axis of `AXES`: the mean over the seeds."""
        return self.runs.groupby("density")[AXES[axis]].mean().sort_index().tolist()


def curves(table: pd.DataFrame) -> list[Curve]:
    """All curves of a table, baselines first, by task and from fine to coarse granularity."""
    labelled = label(table[table["schedule"] != "Never"])
    groups = labelled.groupby(["task_label", "granularity", "method"], sort=False)
    found = [_curve(runs) for _, runs in groups]
    return sorted(
        found, key=lambda c: (c.task, granularity_rank(c.granularity), not c.baseline, c.inverted, c.method)
    )


def label(table: pd.DataFrame) -> pd.DataFrame:
    """Add `task_label` and `method`, each unambiguous."""
    table = table.copy()
    table["task_label"] = task_labels(table)
    names = [_method(row) for row in table.itertuples()]
    table["method"] = _unambiguous(table, names, ["task_label", "granularity"], "variant")
    return table


def task_labels(table: pd.DataFrame) -> list[str]:
    """Task and network, with the protocol's digits where several would mix."""
    names = [f"{row.task} {row.network}" for row in table.itertuples()]
    return _unambiguous(table, names, [], "protocol")


def advantage(curve: Curve, baseline: Curve) -> list[tuple[float, Estimate]]:
    """Density -> accuracy minus the baseline's with the same seed and density, in points."""
    return points(curve.seeds - baseline.seeds)


def points(seeds: pd.DataFrame) -> list[tuple[float, Estimate]]:
    """Density -> mean and interval over the seeds; densities without any value are left out."""
    estimates = [(float(density), mean(seeds[density])) for density in sorted(seeds.columns)]
    return [(density, estimate) for density, estimate in estimates if estimate is not None]


def baseline_of(curve: Curve, among: list[Curve]) -> Curve | None:
    """The random baseline of a curve's task and granularity; the largest if there are several."""
    here = [c for c in among if c.baseline and (c.task, c.granularity) == (curve.task, curve.granularity)]
    return max(here, key=lambda c: len(c.runs), default=None)


def dense_accuracy(table: pd.DataFrame, task: str) -> pd.Series:
    """Seed -> accuracy of the unpruned network in percent, averaged over granularities.

    It comes from runs that never prune and from the first round of iterative ones.
    """
    table = table.assign(task_label=task_labels(table))
    known = table[(table["task_label"] == task) & table["dense_accuracy"].notna()]
    once = known.drop_duplicates(["seed", "granularity"])
    return 100 * once.groupby("seed")["dense_accuracy"].mean()


def by_task(found: list[Curve]) -> Iterator[tuple[str, dict[str, list[Curve]]]]:
    """Each task with its curves by granularity, from fine to coarse."""
    for task in dict.fromkeys(curve.task for curve in found):
        here = [curve for curve in found if curve.task == task]
        yield (
            task,
            {
                granularity: [curve for curve in here if curve.granularity == granularity]
                for granularity in dict.fromkeys(curve.granularity for curve in here)
            },
        )


def granularity_rank(granularity: str) -> tuple[int, str]:
    """Where a granularity is in the order from fine to coarse; others come last."""
    known = granularity in FINE_TO_COARSE
    return (FINE_TO_COARSE.index(granularity) if known else len(FINE_TO_COARSE), granularity)


def _curve(runs: pd.DataFrame) -> Curve:
    first = runs.iloc[0]
    return Curve(
        task=first["task_label"],
        granularity=first["granularity"],
        method=first["method"],
        criterion=first["criterion"],
        baseline=first["criterion"] == "Random" and first["schedule"] == "AtInit",
        runs=runs,
        seeds=100 * runs.pivot_table("test_accuracy", index="seed", columns="density"),
    )


def _method(row: object) -> str:
    criterion = row.criterion.replace("Inverted.", "inverted ")  # type: ignore[attr-defined]
    usual = "AtInit" if criterion == "Random" else "Iterative"
    schedule = "" if row.schedule == usual else f", {row.schedule}"  # type: ignore[attr-defined]
    return f"{criterion}, {row.scope}{schedule}"  # type: ignore[attr-defined]


def _unambiguous(table: pd.DataFrame, names: list[str], within: list[str], by: str) -> list[str]:
    """Append the digits of column `by` to names that would otherwise stand for several of them."""
    keyed = table[within].assign(name=names, by=table[by].to_numpy())
    several = keyed.groupby([*within, "name"])["by"].transform("nunique") > 1
    return [
        f"{name} {digits}" if more else name
        for name, digits, more in zip(names, keyed["by"], several, strict=True)
    ]
