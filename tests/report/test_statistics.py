import math

import numpy as np
import pytest
from scipy import stats

from granprune.report.statistics import (
    Estimate,
    bootstrap,
    crossing,
    falling_trend,
    mean,
    slope,
    value_at,
)

NAN = float("nan")


def test_mean_and_t_interval_by_the_textbook() -> None:
    # Values 1, 2, 3: standard deviation 1, standard error 1/sqrt(3), t(0.975, 2) = 4.302653.
    estimate = mean([1.0, 2.0, 3.0])
    assert estimate is not None and estimate.value == 2.0
    assert estimate.low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-6)
    assert estimate.high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-6)


def test_one_value_has_no_interval() -> None:
    assert mean([5.0]) == Estimate(5.0, None, None)
    assert mean([5.0, NAN]) == Estimate(5.0, None, None)
    assert mean([NAN]) is None


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert mean([5.0, 5.0]) == Estimate(5.0, 5.0, 5.0)


def test_value_is_interpolated_over_the_logarithm_in_any_order() -> None:
    densities, accuracies = [1.0, 0.0625, 0.25], [90.0, 50.0, 80.0]
    assert value_at(densities, accuracies, 0.125) == pytest.approx(65.0)
    assert value_at(densities, accuracies, 0.5) == pytest.approx(85.0)
    assert value_at(densities, accuracies, 0.0625) == 50.0


def test_value_is_not_extrapolated_and_gaps_are_bridged() -> None:
    assert value_at([0.5, 0.25], [80.0, 60.0], 0.2) is None
    assert value_at([0.5, 0.25], [80.0, 60.0], 0.6) is None
    assert value_at([1.0, 0.5, 0.25], [90.0, NAN, 70.0], 0.5) == pytest.approx(80.0)
    assert value_at([0.5], [NAN], 0.5) is None


def test_crossing_of_a_falling_curve() -> None:
    # From 90 at 1/2 to 70 at 1/8: 80 lies in the middle of the logarithms, at 1/4.
    assert crossing([0.5, 0.125], [90.0, 70.0], 80.0) == pytest.approx(0.25)
    assert crossing([0.5, 0.125], [90.0, 70.0], 70.0) == pytest.approx(0.125)
    assert crossing([0.5, 0.125], [90.0, 70.0], 90.0) == pytest.approx(0.5)


def test_crossing_is_the_densest_one() -> None:
    densities, accuracies = [1.0, 0.5, 0.25, 0.125], [90.0, 70.0, 85.0, 60.0]
    assert crossing(densities, accuracies, 80.0) == pytest.approx(2**-0.5)


def test_no_crossing() -> None:
    assert crossing([0.5, 0.25], [90.0, 85.0], 80.0) is None
    assert crossing([0.5, 0.25], [70.0, 60.0], 80.0) is None
    assert crossing([0.5, 0.25], [60.0, 90.0], 80.0) is None  # it rises, the wrong way
    assert crossing([0.5], [80.0], 80.0) is None


def test_bootstrap_of_two_seeds_by_hand() -> None:
    # Resamples of {0, 10}: 0, 5, 5, 10, equally likely; the 2.5 % quantile of these four is 0.375.
    values = [0.0, 10.0]
    estimate = bootstrap(2, lambda seeds: sum(values[s] for s in seeds) / len(seeds))
    assert estimate == Estimate(5.0, pytest.approx(0.375), pytest.approx(9.625))


def test_bootstrap_of_many_seeds_agrees_with_scipy() -> None:
    values = np.random.default_rng(3).normal(10, 2, 30)
    ours = bootstrap(30, lambda seeds: float(values[list(seeds)].mean()))
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(1))
    assert ours is not None and ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.1)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.1)


def test_bootstrap_without_answers() -> None:
    assert bootstrap(1, lambda seeds: 3.0) == Estimate(3.0)
    assert bootstrap(3, lambda seeds: None) is None
    # One resample in four has no value: too many for an interval.
    assert bootstrap(2, lambda seeds: None if set(seeds) == {1} else 3.0) == Estimate(3.0)


def test_slope_of_a_line() -> None:
    assert slope([6.0, 4.0, 2.0]) == -2.0
    assert slope([1.0, 0.0]) == -1.0
    assert slope([1.0, 1.0, 1.0]) == 0.0


def test_trend_of_two_perfect_seeds() -> None:
    # Of the 6 * 6 orders within two rows only one has so steep a mean slope: p = 1/36.
    trend = falling_trend([[5.0, 3.0, 1.0], [6.0, 4.0, 2.0]])
    assert trend is not None and trend.blocks == 2
    assert trend.slope == Estimate(-2.0, -2.0, -2.0)
    assert trend.p == pytest.approx(1 / 36)


def test_trend_by_counting_all_orders() -> None:
    import itertools

    rows = [[5.0, 4.0, 1.0], [3.0, 3.5, 2.0], [1.0, 4.0, 0.5]]
    observed = sum(map(slope, rows))
    orders = itertools.product(*(itertools.permutations(row) for row in rows))
    sums = [sum(map(slope, order)) for order in orders]
    trend = falling_trend(rows)
    assert trend is not None
    assert trend.p == pytest.approx(sum(s <= observed + 1e-12 for s in sums) / len(sums))


def test_trend_of_two_granularities() -> None:
    # Four sign patterns, one as extreme.
    trend = falling_trend([[5.0, 1.0], [6.0, 2.0]])
    assert trend is not None and trend.p == pytest.approx(1 / 4)


def test_rising_trend_is_not_falling() -> None:
    trend = falling_trend([[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]])
    assert trend is not None and trend.p == pytest.approx(1.0)


def test_trend_of_one_seed_has_no_test() -> None:
    trend = falling_trend([[5.0, 3.0, 1.0], [6.0, NAN, 2.0]])
    assert trend is not None and trend.blocks == 1
    assert trend.p is None and trend.slope == Estimate(-2.0)


def test_no_trend() -> None:
    assert falling_trend([[NAN, 1.0]]) is None
    assert falling_trend([[1.0], [2.0]]) is None
    assert falling_trend(np.empty((0, 3))) is None
