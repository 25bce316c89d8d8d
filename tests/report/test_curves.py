import math

import pytest

from granprune.report.curves import (
    advantage,
    baseline_of,
    by_task,
    curves,
    dense_accuracy,
    granularity_rank,
    task_labels,
)
from granprune.report.statistics import Estimate


def test_curves_of_the_toy_study(toy) -> None:
    found = curves(toy)
    assert [(c.granularity, c.method, c.baseline, c.inverted) for c in found[:3]] == [
        ("Weights", "Random, Layerwise", True, False),
        ("Weights", "Magnitude, Global", False, False),
        ("Weights", "inverted Magnitude, Global", False, True),
    ]
    assert [task for task, _ in by_task(found)] == ["Toy Net"]
    assert list(next(by_task(found))[1]) == ["Weights", "Kernels", "Channels"]


def test_mean_over_seeds_in_percent(toy) -> None:
    baseline = curves(toy)[0]
    points = baseline.accuracy()
    assert [density for density, _ in points] == [0.125, 0.25, 0.5]
    assert [estimate.value for _, estimate in points] == pytest.approx([60.5, 75.5, 85.5])
    half = 12.7062 * math.sqrt(0.5) / math.sqrt(2)  # t(0.975, 1) times the standard error
    assert points[0][1].high == pytest.approx(60.5 + half, abs=1e-3)
    assert baseline.place("parameters") == [125.0, 250.0, 500.0]
    assert baseline.place("MACs") == [1125.0, 2250.0, 4500.0]


def test_advantage_is_paired_by_seed(make_table, make_random) -> None:
    # Seeds differ by 20 points, the advantage is 5 and 7: paired, its interval knows of no 20.
    table = make_table(
        make_random(seed=1, test_accuracy=0.50),
        make_random(seed=2, test_accuracy=0.70),
        {"seed": 1, "test_accuracy": 0.55},
        {"seed": 2, "test_accuracy": 0.77},
        {"seed": 3, "test_accuracy": 0.99},  # has no partner
    )
    baseline, method = curves(table)
    assert baseline_of(method, [method, baseline]) is baseline
    ((density, estimate),) = advantage(method, baseline)
    assert density == 0.5 and estimate.value == pytest.approx(6.0)
    assert estimate.low == pytest.approx(6.0 - 12.7062, abs=1e-3)


def test_advantage_where_either_is_missing_is_left_out(make_table, make_random) -> None:
    table = make_table(make_random(density=0.5), {"density": 0.5}, {"density": 0.25})
    baseline, method = curves(table)
    assert advantage(method, baseline) == [(0.5, Estimate(0.0))]


def test_missing_cells_count_only_what_is_there(make_table) -> None:
    table = make_table({"density": 0.5, "seed": 1}, {"density": 0.5, "seed": 2}, {"density": 0.25, "seed": 2})
    ((_, quarter), (_, half)) = curves(table)[0].accuracy()
    assert quarter == Estimate(90.0) and half.low is not None


def test_dense_accuracy_comes_from_first_rounds_and_dense_runs(make_table) -> None:
    table = make_table(
        {"seed": 1, "dense_accuracy": 0.90, "density": 0.5},
        {"seed": 1, "dense_accuracy": 0.90, "density": 0.25},
        {"seed": 1, "dense_accuracy": 0.92, "granularity": "Kernels"},
        {"seed": 2, "dense_accuracy": 0.80, "schedule": "Never", "density": 1.0},
        {"seed": 3, "dense_accuracy": None},
    )
    assert dense_accuracy(table, "Toy Net").to_dict() == pytest.approx({1: 91.0, 2: 80.0})
    assert len(curves(table)) == 2  # a run that never prunes is no method


def test_runs_that_cannot_be_compared_are_told_apart(make_table) -> None:
    table = make_table({"protocol": "aaaa"}, {"protocol": "bbbb"}, {"task": "Other"})
    assert task_labels(table) == ["Toy Net aaaa", "Toy Net bbbb", "Other Net"]
    table = make_table(
        {"variant": "aaaa"}, {"variant": "bbbb"}, {"variant": "bbbb", "granularity": "Kernels"}
    )
    assert [c.method for c in curves(table)] == [
        "Magnitude, Global aaaa",
        "Magnitude, Global bbbb",
        "Magnitude, Global",
    ]


def test_unusual_schedules_are_named(make_table) -> None:
    table = make_table({"schedule": "AtInit"}, {"criterion": "Random"})
    assert [(c.method, c.baseline) for c in curves(table)] == [
        ("Magnitude, Global, AtInit", False),
        ("Random, Global, Iterative", False),
    ]


def test_order_from_fine_to_coarse() -> None:
    names = ["Nodes", "Blocks", "Channels", "Weights", "Kernels"]
    assert sorted(names, key=granularity_rank) == ["Weights", "Kernels", "Channels", "Nodes", "Blocks"]
