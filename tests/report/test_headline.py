import pytest

from granprune.report.curves import curves
from granprune.report.headline import best, headline, trends
from granprune.report.statistics import Estimate


def at(accuracy: float):
    return lambda dense: accuracy


def test_accuracy_where_random_reaches_the_target(toy) -> None:
    # Means over two seeds: random 85.5 at 1/2 and 75.5 at 1/4, so 80.5 at 2**-1.5.
    entries = headline(toy, curves(toy), at(80.5))
    assert [(e.granularity, e.method, e.inverted) for e in entries[:2]] == [
        ("Weights", "Magnitude, Global", False),
        ("Weights", "inverted Magnitude, Global", True),
    ]
    upright = [e for e in entries if not e.inverted]
    assert [e.density.value for e in upright] == pytest.approx([2**-1.5] * 3)
    assert [e.accuracy.value for e in upright] == pytest.approx([84.5, 82.5, 81.5])
    assert [e.gain.value for e in upright] == pytest.approx([4.0, 2.0, 1.0])
    assert best(entries) == upright


def test_bootstrap_interval_of_the_density(toy) -> None:
    # Resampled seeds: random 1 alone crosses 80.5 at 0.45 of the way from 1/2 to 1/4, 2 alone at 0.55.
    entry = headline(toy, curves(toy), at(80.5))[0]
    lowest, highest = 2**-1.55, 2**-1.45
    assert lowest < entry.density.low < entry.density.value < entry.density.high < highest
    # The curves are parallel, so the advantage does not depend on the seeds: no width at all.
    assert entry.gain == Estimate(pytest.approx(4.0), pytest.approx(4.0), pytest.approx(4.0))


def test_target_follows_the_unpruned_accuracy(toy) -> None:
    entries = headline(toy, curves(toy), lambda dense: dense - 5)  # unpruned: 90 and 91
    assert entries[0].target == pytest.approx(85.5)
    assert entries[0].density.value == pytest.approx(0.5)


def test_unpruned_network_is_the_curve_at_density_one(toy) -> None:
    # 88 lies between 90.5 unpruned and 85.5 at 1/2, in the middle of the logarithms.
    entry = headline(toy, curves(toy), at(88.0))[0]
    assert entry.density.value == pytest.approx(2**-0.5)
    assert entry.accuracy.value == pytest.approx((90.5 + 89.5) / 2)


def test_target_that_random_does_not_cross(toy) -> None:
    assert headline(toy, curves(toy), at(10.0)) == []
    assert headline(toy, curves(toy), at(95.0)) == []


def test_without_baseline_or_unpruned_accuracy_there_is_nothing_to_compare(toy) -> None:
    intelligent = toy[toy["criterion"] != "Random"]
    assert headline(intelligent, curves(intelligent), at(80.0)) == []
    undated = toy.assign(dense_accuracy=float("nan"))
    assert headline(undated, curves(undated), at(80.0)) == []


def test_method_whose_curve_ends_before(toy) -> None:
    dense = toy[(toy["criterion"] == "Random") | (toy["density"] == 0.5)]
    entry = headline(dense, curves(dense), at(70.0))[0]
    assert entry.accuracy is None and entry.gain is None and entry.advantage == {}
    assert best([entry]) == []


def test_one_seed_has_no_interval(toy) -> None:
    single = toy[toy["seed"] == 1]
    entries = headline(single, curves(single), at(80.0))
    assert entries[0].density == Estimate(pytest.approx(2**-1.5))
    assert entries[0].accuracy == Estimate(pytest.approx(84.0))
    ((names, trend),) = trends(entries).values()
    assert names == ["Weights", "Kernels", "Channels"] and trend.p is None
    assert trend.slope == Estimate(pytest.approx(-1.5))


def test_advantage_falls_from_weights_to_channels(toy) -> None:
    found = trends(headline(toy, curves(toy), at(80.5)))
    names, trend = found["Toy Net"]
    assert names == ["Weights", "Kernels", "Channels"] and trend.blocks == 2
    assert trend.slope.value == pytest.approx(-1.5)  # 4, 2, 1: minus 1.5 a place
    assert trend.p == pytest.approx(1 / 36)


def test_best_is_the_most_accurate_upright_criterion(make_table, make_random) -> None:
    runs = [make_random(density=d, test_accuracy=a) for d, a in ((0.5, 0.85), (0.25, 0.75))]
    for scope, gain in ("Global", 0.01), ("Layerwise", 0.03), ("ByRole", 0.02):
        for d, a in (0.5, 0.85), (0.25, 0.75):
            runs.append({"scope": scope, "density": d, "test_accuracy": a + gain, "dense_accuracy": 0.9})
    table = make_table(*runs)
    assert [e.method for e in best(headline(table, curves(table), at(80.0)))] == ["Magnitude, Layerwise"]
