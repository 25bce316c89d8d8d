import pytest

from granprune.schedule import Iterative, LearningRateRewinding


@pytest.mark.parametrize("rewind_step", [0, 1])
def test_steps_are_those_of_iterative_and_no_state_returns(rewind_step):
    schedule = LearningRateRewinding(rounds=2, steps=3, rewind_step=rewind_step)
    like = Iterative(rounds=2, steps=3, rewind_step=rewind_step)
    assert schedule.rewind_step is None and like.rewind_step == rewind_step
    assert schedule.total_steps == like.total_steps
    for step in range(like.total_steps):
        assert schedule.round_at(step) == like.round_at(step)
        assert schedule.position(step) == like.position(step)
        assert schedule.ends_round(step) == like.ends_round(step)
    assert [schedule.density(k, 0.3) for k in range(3)] == [like.density(k, 0.3) for k in range(3)]


def test_positions_by_hand():
    schedule = LearningRateRewinding(rounds=1, steps=3, rewind_step=1)
    assert [schedule.position(step) for step in range(schedule.total_steps)] == [0, 1, 2, 1, 2]
