import pytest

from granprune.report.dimensions import dimensions


def test_mean_over_seeds_by_task_granularity_method_and_density(make_table) -> None:
    table = make_table(
        {"granularity": "Kernels", "dimensions": 7.0},
        {"density": 0.25, "dimensions": 3.0},
        {"density": 0.5, "seed": 1, "dimensions": 4.0},
        {"density": 0.5, "seed": 2, "dimensions": 6.0},
        {"density": 1.0, "schedule": "Never", "dimensions": 9.0},
        {"density": 0.5, "seed": 3, "dimensions": None},
    )
    (rows,) = dimensions(table).values()
    assert [(*words, size.value) for words, size in rows] == [
        ("Weights", "unpruned", "1", 9.0),
        ("Weights", "Magnitude, Global", "1/2", 5.0),
        ("Weights", "Magnitude, Global", "1/4", 3.0),
        ("Kernels", "Magnitude, Global", "1/2", 7.0),
    ]
    assert rows[1][1].high == pytest.approx(5 + 12.7062, abs=1e-3)  # t(0.975, 1) times a standard error of 1
    assert rows[2][1].low is None


def test_tasks_are_told_apart(make_table) -> None:
    table = make_table({"dimensions": 1.0}, {"task": "Other", "dimensions": 2.0})
    assert list(dimensions(table)) == ["Other Net", "Toy Net"]


def test_where_nothing_was_measured_there_is_nothing(toy) -> None:
    assert dimensions(toy) == {}
