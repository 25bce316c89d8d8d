import pytest
import torch

from benchmarks.measure import (
    Pairs,
    alternate,
    faster,
    limited,
    peak_memory_mib,
    percent,
    quartiles,
    seconds,
    share,
)


class FakeClock:
    """Stands still unless told how long something takes."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def work(self, seconds, log, name):
        log.append(name)
        self.now += seconds


def test_rivals_take_turns_and_each_is_timed_alone():
    clock, log = FakeClock(), []
    durations = iter([2.0, 6.0, 3.0, 6.0, 1.0, 4.0])
    pairs = alternate(
        lambda: clock.work(next(durations), log, "A"), lambda: clock.work(next(durations), log, "B"), 3, clock
    )
    assert "".join(log) == "ABABAB"
    assert pairs == Pairs(ours=[2.0, 3.0, 1.0], rival=[6.0, 6.0, 4.0])


def test_seconds_of_a_call():
    clock = FakeClock()
    assert seconds(lambda: clock.work(1.5, [], ""), clock) == 1.5


def test_pairs_in_other_units():
    pairs = Pairs([2.0, 4.0], [10.0, 20.0])
    assert pairs.scaled(1000, 10) == Pairs([2000.0, 4000.0], [100.0, 200.0])
    assert pairs.rates(8, 40) == Pairs([4.0, 2.0], [4.0, 2.0])


def test_speedup_is_the_median_of_paired_ratios_not_the_ratio_of_medians():
    row = faster("step", "ms", Pairs([2, 3, 1], [6, 6, 4]), 3.0, floor=1.0, note="floor: on paper")
    # Ratios 3, 2, 4; their median is 3, the ratio of the medians 6 / 2 is 3 too, so a second case below.
    assert (row.ours, row.rival, row.ratio, row.spread) == (2, 6, 3, (2.5, 3.5))
    assert row.ok and (row.asked, row.bound) == (3.0, "at least")
    assert row.note == "floor: on paper; 50 % reached"
    assert faster("step", "ms", Pairs([1, 2, 9], [4, 2, 9]), 1.0, 1.0, "").ratio == 1  # 4, 1, 1; medians: 2
    assert not faster("step", "ms", Pairs([1], [2.99]), 3.0, 1.0, "").ok


def test_share_and_overhead_divide_the_other_way():
    row = share(
        "overhead", "ms", Pairs([103, 104, 105], [100, 100, 100]), 1.04, "at most", 52.0, "floor: half"
    )
    assert row.ratio == 1.04 and row.ok
    assert row.spread == pytest.approx((1.035, 1.045))
    assert row.note == "floor: half; 50 % reached"
    assert not share("overhead", "ms", Pairs([104.1], [100]), 1.04, "at most", 52.0, "").ok


def test_a_rate_has_a_ceiling():
    row = share("rate", "GFLOP/s", Pairs([60, 80], [100, 100]), 0.7, "at least", 100, "ceiling")
    assert row.ratio == pytest.approx(0.7) and row.ours == 70
    assert row.note == "ceiling; 70 % reached"
    assert not share("rate", "GFLOP/s", Pairs([69], [100]), 0.7, "at least", 100, "").ok


def test_limits_have_no_rival():
    row = limited("help", "s", [1.0, 2.0, 1.5], 1.5, floor=0.3, note="floor: an interpreter", peak=7.0)
    assert (row.ours, row.rival, row.ratio, row.ok) == (1.5, None, None, True)
    assert row.spread == (1.25, 1.75)
    assert row.peak_memory_mib == 7.0
    assert row.note == "floor: an interpreter; 20 % reached"
    assert not limited("help", "s", [1.6], 1.5, 0.3, "").ok


def test_quartiles_lie_within_the_values():
    assert quartiles([1, 2, 3, 4, 5]) == (2, 4)
    assert quartiles([1, 2]) == (1.25, 1.75)
    assert quartiles([3]) == (3, 3)


def test_shares_keep_two_digits():
    assert [percent(share) for share in (1.234, 0.4567, 0.004567)] == ["123 %", "46 %", "0.46 %"]


def test_peak_memory_stays_after_the_memory_is_given_back():
    before = peak_memory_mib()
    size = int(before) + 64  # MiB: more than the process has ever held
    torch.ones(size * 2**18)
    assert size < peak_memory_mib() < size + before + 64
