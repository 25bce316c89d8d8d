"""Runs that are killed and started again end as if they had never stopped."""

import json
import signal

import pytest

from benchmarks import kill

# Where each case is killed, one kill after another: rank, place, how often it is passed before.
KILLS = {
    "weights-magnitude-accumulate": [
        (0, "batch start", 37),
        (0, "batch end", 110),
        (0, "pruning", 0),  # right after an evaluation at an epoch's end
    ],
    "weights-magnitude-dropout": [(0, "row written", 2), (0, "validation", 11)],
    "weights-snip-adam": [(0, "pruning", 0), (0, "evaluation end", 3)],
    "weights-random-rewind": [(0, "rewinding", 0), (0, "rename", 7)],
    "weights-inverted-layerwise": [(0, "batch end", 3), (0, "epoch end", 5)],
    "weights-movement-gradual": [(0, "batch end", 18), (0, "pruning", 1)],
    "nodes-statistical-two-ranks": [(1, "batch end", 33), (0, "pruning", 1)],
    "nodes-at-init": [(0, "pruning", 0), (0, "rename", 7)],
    "kernels-snip": [(0, "flush to disk", 17), (0, "pruning", 1)],
    "channels-statistical": [(0, "rename", 9), (0, "rewinding", 0)],
    "channels-magnitude-rewind": [(0, "batch start", 30), (0, "evaluation end", 4)],
    "weights-snip-two-ranks": [(1, "rewinding", 0), (0, "flush to disk", 21)],
}
DROPOUT = "weights-magnitude-dropout"


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """Case -> what its run leaves when nothing happens to it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    outcomes = {}

    def outcome(case):
        if case not in outcomes:
            assert not any(kill.run(kill.fit_arguments(case, folder / case), folder / "log.txt"))
            outcomes[case] = kill.outcome(folder / case)
        return outcomes[case]

    return outcome


def killed_and_finished(case, folder, kills, prepare=None, options=()):
    """What a run leaves that was killed, and whose last process was prepared."""
    arguments = [*kill.fit_arguments(case, folder / "runs"), *options]
    for victim, place, after in kills:
        codes = kill.run(arguments, folder / "log.txt", kill.kill_at(place, after), victim)
        assert codes.pop(victim) == -signal.SIGKILL
        assert all(code == 1 for code in codes), "the other rank ends by itself"
    assert not any(kill.run(arguments, folder / "log.txt", prepare))
    return kill.outcome(folder / "runs")


@pytest.mark.parametrize("case", kill.CASES)
def test_kills_leave_no_trace(case, undisturbed, tmp_path):
    assert kill.differences(undisturbed(case), killed_and_finished(case, tmp_path, KILLS[case])) == []


def test_the_outcome_says_something(undisturbed):
    result = undisturbed(DROPOUT)["result"]
    assert [round(r["density"], 2) for r in result["rounds"]] == [1.0, 0.45, 0.2]
    assert result["test_accuracy"] > 0.8
    steps = [json.loads(row)["step"] for row in undisturbed(DROPOUT)["metrics"].splitlines()]
    assert steps == sorted({*range(7, 91, 7), 30, 60, 90})


def forget_random_state():
    import granprune.run.checkpoint

    granprune.run.checkpoint.set_random_state = lambda state: None


def forget_momentum():
    from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector

    _CheckpointConnector.restore_optimizers = lambda self: None


def forget_position():
    from granprune.data.loader import TrainLoader

    TrainLoader.load_state_dict = lambda self, state: None


def keep_rows():
    import granprune.run.record

    granprune.run.record.drop_rows_after = lambda path, step: None


@pytest.mark.parametrize("mistake", [forget_random_state, forget_momentum, forget_position, keep_rows])
def test_a_mistake_shows(mistake, undisturbed, tmp_path):
    found = killed_and_finished(DROPOUT, tmp_path, [(0, "row written", 4)], prepare=mistake)
    different = kill.differences(undisturbed(DROPOUT), found)
    assert different == ["/metrics"] if mistake is keep_rows else len(different) > 10


def test_a_complete_run_says_so_and_a_fresh_one_goes_beside_it(undisturbed, tmp_path):
    arguments = kill.fit_arguments(DROPOUT, tmp_path / "runs")
    log = tmp_path / "log.txt"
    assert kill.run(arguments, log) == [0]
    (first,) = (tmp_path / "runs").iterdir()
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    log.unlink()
    assert kill.run(arguments, log) == [0]
    assert log.read_text().startswith(f"this run is complete: {first} ")
    assert kill.run([*arguments, "--run.fresh=true"], log) == [0]
    assert {path: path.read_bytes() for path in first.rglob("*") if path.is_file()} == before
    second = first.with_name(f"{first.name}-2")
    assert (second / "metrics.jsonl").read_bytes() == (first / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_a_compiled_run_resumes_exactly(tmp_path):
    compiled = ["--model.compile=true"]
    arguments = [*kill.fit_arguments(DROPOUT, tmp_path / "whole"), *compiled]
    assert kill.run(arguments, tmp_path / "log.txt") == [0]
    found = killed_and_finished(DROPOUT, tmp_path, [(0, "batch end", 42)], options=compiled)
    assert kill.differences(kill.outcome(tmp_path / "whole"), found) == []
