"""The arithmetic of the report, on plain arrays. Pure functions; None where there is no answer."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.95
EXHAUSTIVE = 5  # seeds up to which every resample is tried: 5**5 = 3125
RESAMPLES = 4000
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number and the interval it lies in.

    Args:
        value: The estimate.
        low: Lower end of the 95 % interval; None if there is no telling, as with one seed.
        high: Upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None

    def less(self, amount: float) -> "Estimate":
        """The same, less a known amount."""
        ends = [end if end is None else end - amount for end in (self.low, self.high)]
        return Estimate(self.value - amount, *ends)


@dataclass(frozen=True)
class Trend:
    """Whether a quantity falls along an order.

    Args:
        slope: Its mean change from one place in the order to the next, with a t interval.
        p: Chance of so steep a fall if the order within each block were random; None with one block.
        blocks: Seeds that it was seen in.
    """

    slope: Estimate
    p: float | None
    blocks: int


def mean(values: ArrayLike) -> Estimate | None:
    """Mean and Student's t interval; missing values (NaN) do not count.

    >>> mean([1.0, 3.0, float("nan")]).value, mean([1.0]).low, mean([])
    (2.0, None, None)
    """
    known = _known(values)
    if not len(known):
        return None
    center = float(known.mean())
    if len(known) == 1:
        return Estimate(center)
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(known) - 1) * stats.sem(known))
    return Estimate(center, center - half, center + half)


def value_at(densities: ArrayLike, accuracies: ArrayLike, density: float) -> float | None:
    """Accuracy at a density, interpolated linearly over the logarithm of density; never extrapolated.

    >>> value_at([0.25, 1.0], [60.0, 80.0], 0.5)
    70.0
    """
    x, y = _curve(densities, accuracies)
    if not len(x) or not x[0] - 1e-9 <= np.log2(density) <= x[-1] + 1e-9:
        return None
    return float(np.interp(np.log2(density), x, y))


def crossing(densities: ArrayLike, accuracies: ArrayLike, target: float) -> float | None:
    """The largest density at which a curve falls through `target`, interpolated as in `value_at`.

    >>> crossing([0.25, 0.5, 1.0], [60.0, 80.0, 90.0], 70.0)
    0.3535533905932738
    """
    x, y = _curve(densities, accuracies)
    for i in range(len(x) - 1, 0, -1):
        if y[i - 1] <= target <= y[i]:
            share = (target - y[i - 1]) / (y[i] - y[i - 1]) if y[i] > y[i - 1] else 1.0
            return float(2 ** (x[i - 1] + share * (x[i] - x[i - 1])))
    return None


def bootstrap(seeds: int, statistic: Callable[[Sequence[int]], float | None]) -> Estimate | None:
    """A statistic of all seeds, and its percentile interval over resamples of them.

    With few seeds every resample is tried, so the interval is exact and the same each time.

    Args:
        seeds: How many there are.
        statistic: Of the indices of seeds, some of them perhaps repeated.

    Returns:
        None if the statistic has no value; no interval with one seed, or if more than one resample in
        twenty has no value.
    """
    value = statistic(range(seeds))
    if value is None:
        return None
    if seeds < 2:
        return Estimate(value)
    drawn = [statistic(resample) for resample in _resamples(seeds)]
    found = [x for x in drawn if x is not None]
    if len(found) < 0.95 * len(drawn):
        return Estimate(value)
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))


def falling_trend(table: ArrayLike) -> Trend | None:
    """Test that values fall along the columns, paired within rows.

    The statistic is the mean slope of a row; its exact distribution comes from all orders of the
    values within each row (random orders if there are more than 100,000). One-sided.

    Args:
        table: (blocks, places): a row a seed, a column a granularity, from fine to coarse. Rows with
            missing values do not count.

    Returns:
        None if no row is complete or there are fewer than two columns.
    """
    rows = np.asarray(table, dtype=float)
    rows = rows[~np.isnan(rows).any(1)]
    if not len(rows) or rows.shape[1] < 2:
        return None
    slopes = [slope(row) for row in rows]
    center = mean(slopes)
    assert center is not None
    if len(rows) < 2:
        return Trend(center, None, len(rows))
    return Trend(center, _permutation_p(rows), len(rows))


def slope(values: ArrayLike) -> float:
    """Least-squares change from one value to the next.

    >>> slope([5.0, 3.0, 1.0])
    -2.0
    """
    y = np.asarray(values, dtype=float)
    x = np.arange(len(y)) - (len(y) - 1) / 2
    return float((x * y).sum() / (x * x).sum())


def _permutation_p(rows: Array) -> float:
    def statistic(*columns: Array, axis: int) -> Array:
        x = np.arange(len(columns)) - (len(columns) - 1) / 2
        return sum(weight * column.mean(axis=axis) for weight, column in zip(x, columns, strict=True))

    result = stats.permutation_test(
        tuple(rows.T),
        statistic,
        permutation_type="samples",
        alternative="less",
        n_resamples=100_000,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)


def _resamples(seeds: int) -> list[Sequence[int]]:
    if seeds <= EXHAUSTIVE:
        return list(itertools.product(range(seeds), repeat=seeds))
    generator = np.random.default_rng(0)
    return [generator.integers(seeds, size=seeds).tolist() for _ in range(RESAMPLES)]


def _known(values: ArrayLike) -> Array:
    array = np.asarray(values, dtype=float)
    return array[~np.isnan(array)]


def _curve(densities: ArrayLike, accuracies: ArrayLike) -> tuple[Array, Array]:
    """The known points of a curve, by rising logarithm of density."""
    x, y = np.log2(np.asarray(densities, dtype=float)), np.asarray(accuracies, dtype=float)
    known = ~np.isnan(y)
    order = np.argsort(x[known])
    return x[known][order], y[known][order]
