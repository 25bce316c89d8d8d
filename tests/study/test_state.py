import json

import pytest

from granprune.study.resolve import resolve
from granprune.study.state import State, duration, seconds_left, state


@pytest.fixture
def runs(small_study) -> list:
    return resolve(small_study().commands())


def test_run_that_has_not_begun(runs) -> None:
    assert state(runs[0]) == State(False)


def test_run_on_its_way(runs) -> None:
    runs[0].directory.path.mkdir(parents=True)
    rows = [{"step": 8, "round": 0, "test_accuracy": 0.5}, {"step": 16, "round": 1, "test_accuracy": 0.75}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    runs[0].directory.metrics.write_text(text + '{"step": 2')  # the last line is being written
    assert state(runs[0]) == State(False, 16, 1, 0.75)


def test_finished_run(runs) -> None:
    runs[0].directory.path.mkdir(parents=True)
    result = {"rounds": [{}, {}, {}], "test_accuracy": 0.5, "training_seconds": 12.0}
    runs[0].directory.result.write_text(json.dumps(result))
    assert state(runs[0]) == State(True, 24, 2, 0.5, 12.0)


def test_time_left_from_finished_runs(runs) -> None:
    # 24 steps took 12 s; of the other run's 24 steps 8 are made, so 16 are left, half a second each.
    states = [State(True, 24, 2, 0.5, 12.0), State(False, 8)]
    assert seconds_left(runs, states, slots=1) == 8.0
    assert seconds_left(runs, states, slots=2) == 4.0


def test_time_left_is_unknown_before_a_run_is_done(runs) -> None:
    assert seconds_left(runs, [State(False), State(False)], slots=1) is None


def test_no_time_is_left_when_all_is_done(runs) -> None:
    assert seconds_left(runs, [State(True, 24, seconds=1.0)] * 2, slots=1) == 0


def test_durations_in_words() -> None:
    assert [duration(s) for s in (0, 89, 90, 3599, 3600, 7322)] == [
        "0 s",
        "89 s",
        "2 min",
        "1 h 00 min",
        "1 h 00 min",
        "2 h 02 min",
    ]
