import pytest

from granprune.errors import UserError
from granprune.learning_rate import Constant, WarmupAndDrops

PAPER = [  # step, learning rate at 0.03: 0.03 * step / 20,000, then two drops
    (0, 0.0), (1, 1.5e-6), (10_000, 0.015), (19_999, 0.03 * 19_999 / 20_000),
    (20_000, 3e-3), (24_999, 3e-3), (25_000, 3e-4), (29_999, 3e-4),
]  # fmt: skip


@pytest.mark.parametrize("step, rate", PAPER)
def test_the_papers_schedule(step, rate):
    assert 0.03 * WarmupAndDrops().factor(step, 30_000) == pytest.approx(rate, rel=1e-12)


def test_it_scales_with_the_round():
    rate = WarmupAndDrops(warmup=0.5, drops=[0.5, 0.75], drop_factor=0.5)
    assert [rate.factor(step, 8) for step in range(8)] == [0, 0.25, 0.5, 0.75, 0.5, 0.5, 0.25, 0.25]


def test_without_warmup_the_first_step_is_at_full_rate():
    rate = WarmupAndDrops(warmup=0, drops=[])
    assert [rate.factor(step, 3) for step in range(3)] == [1, 1, 1]


def test_constant():
    assert {Constant().factor(step, 10) for step in range(10)} == {1.0}


def test_drops_must_ascend():
    with pytest.raises(UserError, match=r"drops is \[0.8, 0.5\]"):
        WarmupAndDrops(drops=[0.8, 0.5])
