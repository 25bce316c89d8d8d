import pytest

from granprune.learning_rate import ThenConstant, WarmupAndDrops
from granprune.schedule import AtInit, FineTune


def test_steps_by_hand():
    schedule = FineTune(steps=3, more_steps=2)
    assert schedule.total_steps == 5
    assert [schedule.round_at(step) for step in range(5)] == [0, 0, 0, 1, 1]
    assert [schedule.position(step) for step in range(5)] == [0, 1, 2, 3, 4]
    assert [step for step in range(6) if schedule.ends_round(step)] == [3, 5]
    assert schedule.rewind_step is None
    assert schedule.density(1, 0.1) == 0.1


def test_the_given_rate_rules_after_the_pruning_only():
    inner = WarmupAndDrops(warmup=0.5, drops=(0.75,))
    schedule = FineTune(steps=4, more_steps=3, rate=0.25)
    rate = schedule.learning_rate(inner)
    factors = [rate.factor(schedule.position(step), schedule.steps) for step in range(7)]
    assert factors == pytest.approx([0, 0.5, 1, 0.1, 0.25, 0.25, 0.25])
    assert isinstance(rate, ThenConstant)


def test_other_schedules_leave_the_rate_alone():
    inner = WarmupAndDrops()
    assert AtInit().learning_rate(inner) is inner
