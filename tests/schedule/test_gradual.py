import pytest

from granprune.errors import UserError
from granprune.schedule import Gradual


def test_steps_by_hand():
    schedule = Gradual(rounds=3, every=2, start=1, steps=10)
    assert schedule.total_steps == 10
    assert [schedule.round_at(step) for step in range(10)] == [0, 0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert [schedule.position(step) for step in range(10)] == list(range(10))
    assert [step for step in range(11) if schedule.ends_round(step)] == [3, 5, 7, 10]
    assert schedule.rewind_step is None


def test_sparsity_is_the_cubic_of_zhu_and_gupta():
    schedule = Gradual(rounds=4, every=10, start=0, steps=100)
    wanted = [1 - (0.9 + (0 - 0.9) * (1 - step / 40) ** 3) for step in (0, 10, 20, 30, 40)]
    assert [schedule.density(round, 0.1) for round in range(5)] == pytest.approx(wanted)
    assert schedule.density(2, 0.1) == pytest.approx(0.1 + 0.9 / 8)
    assert schedule.density(4, 0.1) == 0.1


def test_pruning_after_the_run_is_refused():
    Gradual(rounds=3, every=3, steps=10)
    with pytest.raises(UserError, match="prunes last at step 9 .* less than pruning.schedule.steps, 9"):
        Gradual(rounds=3, every=3, steps=9)
