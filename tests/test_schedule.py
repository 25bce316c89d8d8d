from itertools import accumulate, repeat
from operator import mul

import pytest

from granprune.errors import UserError
from granprune.schedule import AtInit, Iterative, Never

WITHOUT_REWIND = [  # step, round, position: 2 rounds of 3 steps
    (0, 0, 0), (1, 0, 1), (2, 0, 2),
    (3, 1, 0), (4, 1, 1), (5, 1, 2),
    (6, 2, 0), (7, 2, 1), (8, 2, 2),
]  # fmt: skip
LATE_REWIND = [  # the same with rewinding to step 1
    (0, 0, 0), (1, 0, 1), (2, 0, 2),
    (3, 1, 1), (4, 1, 2),
    (5, 2, 1), (6, 2, 2),
]  # fmt: skip


@pytest.mark.parametrize("rewind_step, table", [(0, WITHOUT_REWIND), (1, LATE_REWIND)])
def test_iterative_steps_by_hand(rewind_step, table):
    schedule = Iterative(rounds=2, steps=3, rewind_step=rewind_step)
    assert schedule.total_steps == len(table)
    assert [(s, schedule.round_at(s), schedule.position(s)) for s, _, _ in table] == table
    ends = [step for step in range(len(table) + 1) if schedule.ends_round(step)]
    assert ends == ([3, 6, 9] if rewind_step == 0 else [3, 5, 7])


def test_after_the_last_step_the_round_is_still_the_last():
    schedule = Iterative(rounds=2, steps=3)
    assert schedule.round_at(schedule.total_steps) == 2


@pytest.mark.parametrize("schedule, round", [(Never(4), 0), (AtInit(4), 1)])
def test_single_trainings(schedule, round):
    assert schedule.total_steps == 4
    assert [schedule.round_at(step) for step in range(5)] == [round] * 5
    assert [schedule.position(step) for step in range(4)] == [0, 1, 2, 3]
    assert [step for step in range(5) if schedule.ends_round(step)] == [4]
    assert schedule.rewind_step is None


def test_the_papers_lengths():
    assert Never().total_steps == AtInit().total_steps == 30_000
    assert Iterative().total_steps == 180_000
    assert Iterative(rounds=5, steps=30_000, rewind_step=500).total_steps == 30_000 + 5 * 29_500


def test_one_shot_density_is_the_final_one():
    assert AtInit().density(1, 0.125) == 0.125


@pytest.mark.parametrize("rounds", [1, 2, 3, 5, 20])
def test_density_is_the_running_product_of_equal_factors(rounds):
    densities = [Iterative(rounds).density(round, 1 / 8) for round in range(1, rounds + 1)]
    assert densities == list(accumulate(repeat((1 / 8) ** (1 / rounds), rounds), mul))
    assert densities[-1] == pytest.approx(1 / 8)
    assert Iterative(rounds).density(0, 1 / 8) == 1.0


@pytest.mark.parametrize("rounds, pruned", [(1, 6562), (2, 6562), (5, 6562), (10, 6562), (20, 6563)])
def test_half_components_fall_as_in_the_released_program(rounds, pruned):
    nodes, final = 7500, 1 / 8  # 6562.5 to prune
    assert round((1 - Iterative(rounds).density(rounds, final)) * nodes) == pruned


@pytest.mark.parametrize("rewind_step", [3, 4])
def test_rewinding_past_the_round_is_refused(rewind_step):
    with pytest.raises(UserError, match=f"rewind_step is {rewind_step}: it must be less than .* which is 3"):
        Iterative(steps=3, rewind_step=rewind_step)
