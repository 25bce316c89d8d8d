import time

from benchmarks.measure import Pairs
from benchmarks.trainer_turns import Size, Turns, turns_with


def test_the_second_of_two_equal_stretches_counts():
    now, turns_taken = [0.0], []

    def rival():
        turns_taken.append(now[0])
        now[0] += 100 * len(turns_taken)

    turns = Turns(Size(stretch=2, repeats=2, warmup=1), lambda trainer, module: rival, lambda: now[0])
    steps = [50, 1, 2, 3, 4, 5, 6, 7, 8, 9]  # seconds; the first is the warm-up, the last is not measured
    for step in steps:
        turns.at_batch_start(None, None)
        now[0] += step
    assert turns.pairs == Pairs(ours=[3 + 4, 7 + 8], rival=[200, 400])
    assert turns_taken == [60, 160, 386, 686]


def test_a_pause_belongs_to_neither(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    turns = Turns(Size(stretch=1, repeats=2, warmup=0, pause=9), lambda *unused: lambda: None, lambda: now[0])
    for step in (1, 2, 3, 4, 5):
        turns.at_batch_start(None, None)
        now[0] += step
    assert turns.pairs == Pairs(ours=[2, 4], rival=[0, 0])


def test_a_run_is_as_long_as_its_turns():
    assert Size(stretch=2, repeats=3, warmup=1).steps == 1 + 12 + 1


def test_a_real_run_pauses_for_its_rival():
    """The rival sees the run's own steps: two to warm up, then twice three before each of its turns."""
    steps = []

    def prepare(trainer, module):
        assert not module.network.masks["conv"].logical_not().any()
        return lambda: steps.append(trainer.global_step)

    size = Size(batch=4, stretch=3, repeats=2, warmup=2, images=12)
    pairs = turns_with(prepare, size, model__network__init_args__width=2)
    assert steps == [8, 8, 14, 14]
    assert len(pairs.ours) == len(pairs.rival) == 2
    assert min(pairs.ours) > max(pairs.rival) > 0  # three steps take longer than a line
