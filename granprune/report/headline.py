"""The comparison at equal difficulty: where random pruning reaches an accuracy, what do criteria reach?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from granprune.report.curves import Curve, baseline_of, by_task, dense_accuracy
from granprune.report.statistics import Estimate, Trend, bootstrap, crossing, falling_trend, value_at


@dataclass(frozen=True)
class Entry:
    """One method at the density where its random baseline reaches the target.

    Args:
        task: As in `Curve`.
        granularity: As in `Curve`.
        method: As in `Curve`.
        inverted: Whether it is a control.
        target: Accuracy of the baseline, in percent.
        density: Where the baseline reaches it.
        accuracy: What the method reaches there; None if its curve does not extend so far.
        advantage: Seed -> accuracy minus target by that seed's own curves, in points.
    """

    task: str
    granularity: str
    method: str
    inverted: bool
    target: float
    density: Estimate
    accuracy: Estimate | None
    advantage: dict[int, float]

    @property
    def gain(self) -> Estimate | None:
        """Accuracy minus target, in points."""
        return self.accuracy and self.accuracy.less(self.target)


def headline(table: pd.DataFrame, found: Sequence[Curve], target: Callable[[float], float]) -> list[Entry]:
    """Compare every method with its baseline at one accuracy of the baseline a task.

    Args:
        table: All runs.
        found: Their curves.
        target: Accuracy of the unpruned network in percent -> that of the baseline to compare at.

    Returns:
        An entry a method whose baseline reaches the target, in the order of the curves.
    """
    entries = []
    for task, granularities in by_task(list(found)):
        dense = dense_accuracy(table, task)
        if not len(dense):
            continue
        for here in granularities.values():
            entries += _entries(here, dense, target(float(dense.mean())))
    return entries


def best(entries: Sequence[Entry]) -> list[Entry]:
    """The most accurate method of each task and granularity, controls apart."""
    rivals = [entry for entry in entries if entry.accuracy and not entry.inverted]
    keys = dict.fromkeys((entry.task, entry.granularity) for entry in rivals)
    return [max((e for e in rivals if (e.task, e.granularity) == key), key=_accuracy) for key in keys]


def trends(entries: Sequence[Entry]) -> dict[str, tuple[list[str], Trend]]:
    """Task -> its granularities, and whether the best methods' advantage falls along them, over seeds."""
    tasks: dict[str, dict[str, dict[int, float]]] = {}
    for entry in best(entries):
        tasks.setdefault(entry.task, {})[entry.granularity] = entry.advantage
    tested = {task: (list(here), falling_trend(pd.DataFrame(here))) for task, here in tasks.items()}
    return {task: (names, trend) for task, (names, trend) in tested.items() if trend is not None}


def _entries(here: list[Curve], dense: pd.Series, target: float) -> list[Entry]:
    baseline = baseline_of(here[0], here)
    if baseline is None:
        return []
    random = with_dense(baseline.seeds, dense)
    density = bootstrap(len(random), lambda seeds: _crossing(random.iloc[list(seeds)], target))
    if density is None:
        return []
    return [_entry(curve, random, dense, target, density) for curve in here if curve is not baseline]


def _entry(curve: Curve, random: pd.DataFrame, dense: pd.Series, target: float, density: Estimate) -> Entry:
    method = with_dense(curve.seeds, dense)
    common = random.index.intersection(method.index)
    random, method = random.loc[common], method.loc[common]

    def accuracy(seeds: Sequence[int]) -> float | None:
        return _reached(random.iloc[list(seeds)], method.iloc[list(seeds)], target)

    advantage = {seed: accuracy([i]) for i, seed in enumerate(common)}
    return Entry(
        task=curve.task,
        granularity=curve.granularity,
        method=curve.method,
        inverted=curve.inverted,
        target=target,
        density=density,
        accuracy=bootstrap(len(common), accuracy) if len(common) else None,
        advantage={int(seed): reached - target for seed, reached in advantage.items() if reached is not None},
    )


def with_dense(seeds: pd.DataFrame, dense: pd.Series) -> pd.DataFrame:
    """A curve's seeds with the unpruned network as density 1, where it is known."""
    return seeds if 1.0 in seeds else seeds.join(dense.rename(1.0))


def _reached(random: pd.DataFrame, method: pd.DataFrame, target: float) -> float | None:
    density = _crossing(random, target)
    return None if density is None else value_at(method.columns.to_numpy(float), _mean(method), density)


def _crossing(random: pd.DataFrame, target: float) -> float | None:
    return crossing(random.columns.to_numpy(float), _mean(random), target)


def _mean(seeds: pd.DataFrame) -> np.ndarray:
    return seeds.mean(axis=0, skipna=True).to_numpy(float)


def _accuracy(entry: Entry) -> float:
    assert entry.accuracy is not None
    return entry.accuracy.value
