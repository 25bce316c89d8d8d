import json
from pathlib import Path

import pytest
import torch

from granprune.run.directory import RunDirectory
from granprune.study import beginning
from granprune.study.resolve import FitParser, Run, resolve
from granprune.study.work import Task, make, make_beginning


def task(run: Run) -> Task:
    return Task(run.words, run.directory, 1, ".")


def test_runs_that_differ_in_pruning_only_share(small_study) -> None:
    iterative = {"criterion": ["Magnitude", "SNIP"], "scope": ["Global", "Layerwise"], "density": [0.5, 0.25]}
    rounds = {"rounds": {"one": {"pruning.schedule.init_args.rounds": 1}, "two": {}}}
    runs = resolve(small_study(axes={**iterative, **rounds}).commands())
    assert beginning.shared(runs) == [runs]
    assert len(runs) == 16


@pytest.mark.parametrize(
    "axes",
    [
        {"seed": [1, 2]},
        {"granularity": ["Weights", "Nodes"]},
        {"schedule": ["AtInit", "Iterative"]},
        {"pruning.schedule.init_args.steps": [8, 9]},
        {"pruning.schedule.init_args.rewind_step": [0, 2]},
        {"model.optimizer.init_args.lr": [0.05, 0.1]},
        {"trainer.accumulate_grad_batches": [1, 2]},
    ],
)
def test_runs_that_differ_before_pruning_do_not_share(small_study, axes) -> None:
    assert beginning.shared(resolve(small_study(axes=axes).commands())) == []


def test_runs_on_several_devices_do_not_share(small_study) -> None:
    runs = resolve(small_study(settings={"trainer.devices": 2}).commands())
    assert beginning.shared(runs) == []


def test_beginning_does_not_depend_on_which_run_is_first(small_study, parser: FitParser) -> None:
    axes = {"criterion": ["Magnitude", "SNIP"], "density": [0.5, 0.25]}
    runs = resolve(small_study(axes=axes).commands())
    assert len({parser.resolve(beginning.words(run, "there")).name for run in runs}) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"pruning.criterion": "SNIP", "pruning.criterion.num_samples": 50},
        {"pruning.schedule.init_args.rewind_step": 3, "model.granularity": "Nodes"},
        {"checkpoint.every_steps": 5, "trainer.val_check_interval": 3, "pruning.criterion": "Random"},
    ],
    ids=["snip", "late-rewind", "random"],
)
def test_run_after_a_shared_beginning_equals_the_run_made_alone(
    small_study, parser: FitParser, tmp_path: Path, changes: dict, monkeypatch
) -> None:
    monkeypatch.setattr("sys.argv", ["granprune"])
    run = parser.resolve(small_study(settings=changes, axes={"density": [0.25]}).commands()[0])
    alone = parser.resolve([*run.words, f"--run.root={tmp_path / 'alone'}"])
    first = parser.resolve(beginning.words(run, str(tmp_path / "beginnings")))

    begun = make_beginning(task(first), beginning.length(run))
    beginning.inherit(run.directory, begun, beginning.length(run))
    assert run.directory.saved() == [run.directory.checkpoint(8)]
    make(task(run))
    make(task(alone))

    assert alone.name == run.name
    assert same(outcome(run.directory), outcome(alone.directory))


def test_a_run_that_has_begun_inherits_nothing(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.checkpoints.mkdir(parents=True)
    directory.checkpoint(3).write_bytes(b"mine")
    beginning.inherit(directory, RunDirectory(tmp_path / "nowhere"), 8)
    assert [path.name for path in directory.saved()] == [directory.checkpoint(3).name]


def outcome(directory: RunDirectory) -> dict:
    """All that a run leaves, times apart."""
    state = torch.load(directory.saved()[-1], weights_only=True)
    result = json.loads(directory.result.read_text())
    del result["training_seconds"]
    rows = directory.metrics.read_bytes()
    return {
        "state": state["state_dict"],
        "optimizer": state["optimizer_states"],
        "rows": rows,
        "result": result,
    }


def same(a: object, b: object) -> bool:
    """Whether two nested values agree, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    return a == b
