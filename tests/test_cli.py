"""The command line: what overrides what, what is printed, and that a run is its configuration."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from granprune.run.checkpoint_io import load

SMALL = Path(__file__).with_name("small.yaml")
FIT = ["fit", "--config", SMALL]


@pytest.fixture(scope="module")
def finished(launch, tmp_path_factory):
    """A finished run: the folder it was started in, what it printed, and its directory."""
    folder = tmp_path_factory.mktemp("finished")
    ended = launch(folder, *FIT)
    assert (ended.code, ended.err) == (0, "")
    return folder, ended, run_in(folder / "runs")


def run_in(root):
    (directory,) = root.iterdir()
    return directory


def final_state(directory):
    return load(sorted(directory.glob("checkpoints/*.ckpt"))[-1])["state_dict"]


def resolved(ended):
    assert (ended.code, ended.err) == (0, "")
    return yaml.safe_load(ended.out)


def test_files_of_a_run(finished):
    _, ended, directory = finished
    names = {path.name for path in directory.iterdir() if not path.name.startswith(".")}
    assert names == {
        "accuracy-over-density.png",
        "checkpoints",
        "config.yaml",
        "metrics.jsonl",
        "result.json",
    }
    assert directory.name.startswith("digits-dbsn-weights-magnitude-global-iterative-d0.25-s3-")
    result = json.loads((directory / "result.json").read_text())
    assert [record["density"] for record in result["rounds"]] == [1, 0.5, 0.25]
    assert f"everything is in runs/{directory.name}\n" in ended.out


def test_a_second_file_and_flags_override(granprune, tmp_path):
    (tmp_path / "second.yaml").write_text("pruning: {density: 0.5, min_components: 2}\n")
    two = [*FIT, "--config", "second.yaml"]
    pruning = resolved(granprune(*two, "--print_config"))["pruning"]
    assert (pruning["density"], pruning["min_components"]) == (0.5, 2)
    assert pruning["schedule"]["init_args"] == {"rounds": 2, "steps": 8, "rewind_step": 0}
    flagged = resolved(granprune(*two, "--pruning.density", "0.1", "--print_config"))["pruning"]
    assert (flagged["density"], flagged["min_components"]) == (0.1, 2)
    third = resolved(granprune(*FIT, "--config", "second.yaml", "--config", SMALL, "--print_config"))[
        "pruning"
    ]
    assert (third["density"], third["min_components"]) == (0.25, 2)


def test_settings_of_a_class_go_with_it(granprune):
    words = "--pruning.schedule AtInit --pruning.criterion SNIP --pruning.criterion.num_samples 50".split()
    pruning = resolved(granprune(*FIT, *words, "--print_config"))["pruning"]
    assert pruning["schedule"]["class_path"].endswith("AtInit")
    assert pruning["schedule"]["init_args"] == {"steps": 8}
    assert pruning["criterion"]["init_args"] == {"reduction": "per_sample", "num_samples": 50}


def test_printed_configuration_is_one(granprune, tmp_path):
    """What --print_config prints, given as the configuration, prints itself."""
    first = granprune(*FIT, "--print_config")
    (tmp_path / "printed.yaml").write_text(first.out)
    second = granprune("fit", "--config", "printed.yaml", "--print_config")
    assert resolved(second) == resolved(first)
    assert not list(tmp_path.glob("runs"))


def test_environment_variables(granprune):
    variables = {
        "GRANPRUNE_FIT__PRUNING__MIN_COMPONENTS": "4",
        "GRANPRUNE_FIT__PRUNING__SCOPE": "Layerwise",
        "GRANPRUNE_FIT__CHECKPOINT__KEEP": "7",
        "GRANPRUNE_FIT__PRUNING__DENSITY": "0.75",
    }
    config = resolved(granprune(*FIT, "--checkpoint.keep", "3", "--print_config", **variables))
    assert config["pruning"]["min_components"] == 4
    assert config["checkpoint"]["keep"] == 3  # a flag is stronger
    assert config["pruning"]["density"] == 0.25  # and so is a file
    assert config["pruning"]["scope"]["class_path"].endswith("Global")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("model.granularity", "What one mask entry removes"),
        ("model.optimizer", "The optimizer and its settings"),
        ("model.learning_rate", "How the optimizer's rate moves within a round"),
        ("model.top_k", "among the `top_k` likeliest"),
        ("model.compile", "Compile the network"),
        ("model.network", "The network to prune"),
        ("data", "any subclass of ImageDataModule"),
        ("pruning.schedule", "When to prune, and how long to train"),
        ("pruning.criterion", "How components are scored"),
        ("pruning.scope", "Which components are ranked together"),
        ("pruning.density", "Fraction of components kept at the end"),
        ("pruning.min_components", "so that no layer dies"),
        ("checkpoint.every_steps", "Optimizer steps between two checkpoints"),
        ("checkpoint.keep", "How many of the newest checkpoints stay"),
        ("run.root", "Folder of all runs"),
        ("run.fresh", "beside an earlier run"),
        ("wandb.enabled", "WANDB_MODE"),
        ("wandb.project", "The W&B project"),
        ("wandb.group", "Runs that belong together"),
        ("wandb.tags", "Words to filter runs by"),
        ("seed_everything", "Seed of initialization, order, augmentation and scoring"),
        ("ckpt_path", "Checkpoint to go on from"),
    ],
)
def test_help(help_text, option, said):
    entry = help_text.split(f"--{option} ", 2)[2].split("ARG:")[0]  # the first place is the usage
    assert said in entry
    assert f"GRANPRUNE_FIT__{option.replace('.', '__').upper()}" in entry


@pytest.fixture(scope="module")
def help_text(launch, tmp_path_factory):
    ended = launch(tmp_path_factory.mktemp("help"), "fit", "--help", COLUMNS="200")
    assert (ended.code, ended.err) == (0, "")
    return " ".join(ended.out.split())


@pytest.mark.parametrize(
    ("option", "name", "said"),
    [
        ("data", "Digits", "Images of one training batch, over all devices together"),
        ("model.network", "DBSN", "Nodes of each hidden layer, first to last"),
        ("pruning.criterion", "SNIP", "How many augmented training images are used"),
        ("pruning.schedule", "Iterative", "How many times the network is pruned"),
        ("pruning.scope", "LayerMatched", "its directory or one of its checkpoints"),
        ("model.learning_rate", "WarmupAndDrops", "Fraction of the round in which the rate rises"),
    ],
)
def test_help_of_a_class(granprune, option, name, said):
    ended = granprune("fit", f"--{option}.help", name, COLUMNS="200")
    assert (ended.code, ended.err) == (0, "")
    assert said in " ".join(ended.out.split())


def test_usage(granprune):
    for words in [], ["--help"]:
        ended = granprune(*words)
        assert ended.code == 0 and "fit " in ended.out and "test " in ended.out


def test_same_command_again(finished, launch):
    folder, first, directory = finished
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    again = launch(folder, *FIT)
    assert (again.code, again.err) == (0, "")
    assert again.out.startswith(
        f"this run is complete: runs/{directory.name} (start it anew with --run.fresh)"
    )
    assert again.out.splitlines()[-1] == first.out.splitlines()[-1]
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before


def test_saved_configuration_is_the_run(finished, launch):
    folder, _, directory = finished
    again = launch(folder, "fit", "--config", directory / "config.yaml")
    assert again.code == 0 and again.out.startswith(f"this run is complete: runs/{directory.name} ")


def test_saved_configuration_repeats_the_run(finished, launch, tmp_path):
    """In another folder, and from the file alone: the same name, weights and masks, bit for bit."""
    _, _, directory = finished
    ended = launch(tmp_path, "fit", "--config", directory / "config.yaml", "--run.root", "elsewhere/deep")
    assert (ended.code, ended.err) == (0, "")
    twin = run_in(tmp_path / "elsewhere" / "deep")
    assert twin.name == directory.name
    assert same(final_state(twin), final_state(directory))
    assert (twin / "metrics.jsonl").read_bytes() == (directory / "metrics.jsonl").read_bytes()


def test_fresh_starts_beside(launch, finished, tmp_path):
    _, _, directory = finished
    first = tmp_path / "runs" / directory.name
    first.mkdir(parents=True)
    (first / "result.json").write_text("{}")
    ended = launch(tmp_path, *FIT, "--run.fresh", "true")
    assert (ended.code, ended.err) == (0, "")
    assert [path.name for path in first.iterdir()] == ["result.json"]
    second = first.with_name(f"{first.name}-2")
    assert same(final_state(second), final_state(directory))
    evaluated = launch(tmp_path, "test", "--config", second / "config.yaml")
    result = json.loads((second / "result.json").read_text())
    assert shown(evaluated.out, "test_loss") == pytest.approx(result["test_loss"], rel=1e-6)


def test_another_seed_differs(finished, launch, tmp_path):
    _, _, directory = finished
    ended = launch(tmp_path, *FIT, "--seed_everything", "4")
    assert (ended.code, ended.err) == (0, "")
    other = run_in(tmp_path / "runs")
    assert other.name != directory.name
    a, b = final_state(other), final_state(directory)
    assert not any(torch.equal(a[key], b[key]) for key in a if key.endswith(("original", ".mask")))


def test_command_evaluates_with_masks(finished, launch):
    """The checkpoint's raw weights are dense; only with the masks does the run's own accuracy come out."""
    folder, _, directory = finished
    result = json.loads((directory / "result.json").read_text())
    for command in "test", "validate":
        ended = launch(folder, command, "--config", directory / "config.yaml")
        assert (ended.code, ended.err) == (0, evaluating(directory))
        assert shown(ended.out, "test_accuracy") == pytest.approx(result["test_accuracy"], rel=1e-6)
        assert shown(ended.out, "test_loss") == pytest.approx(result["test_loss"], rel=1e-6)
    unmasked = launch(folder, "test", *FIT[1:], "--ckpt_path", dense_copy(directory, folder))
    assert shown(unmasked.out, "test_loss") != pytest.approx(result["test_loss"], rel=1e-3)


def test_checkpoints_can_be_named(finished, launch, tmp_path):
    _, _, directory = finished
    saved = sorted(directory.glob("checkpoints/*.ckpt"))
    losses = [
        shown(launch(tmp_path, "test", *FIT[1:], "--ckpt_path", path).out, "test_loss")
        for path in [directory, saved[-1], saved[0]]
    ]
    rows = [json.loads(row) for row in (directory / "metrics.jsonl").read_text().splitlines()]
    assert losses == pytest.approx([rows[-1]["test_loss"], rows[-1]["test_loss"], rows[-2]["test_loss"]])


def test_dimensionality(finished, launch):
    folder, _, directory = finished
    words = ["test", "--config", directory / "config.yaml", "--report_dimensionality", "true"]
    ended = launch(folder, *words)
    assert (ended.code, ended.err) == (0, evaluating(directory))
    rows = [line.split() for line in ended.out.splitlines() if "hidden." in line]
    assert [(row[0], row[2]) for row in rows] == [("hidden.0", "12"), ("hidden.1", "8")]
    assert all(1 < float(row[1]) <= float(row[2]) for row in rows)


def evaluating(directory):
    """The only line beside the results: which network they are of."""
    return f"granprune: evaluating {sorted(directory.glob('checkpoints/*.ckpt'))[-1]}\n"


def dense_copy(directory, folder):
    """The run's last checkpoint with all masks opened."""
    from granprune.run.checkpoint_io import SealedCheckpointIO

    checkpoint = load(sorted(directory.glob("checkpoints/*.ckpt"))[-1])
    for key, value in checkpoint["state_dict"].items():
        if key.endswith(".mask"):
            value.fill_(True)
    SealedCheckpointIO().save_checkpoint(checkpoint, folder / "dense.ckpt")
    return folder / "dense.ckpt"


def shown(output, name):
    """The number that stands beside a name in a table."""
    (line,) = (line for line in output.splitlines() if name in line)
    return float(line.replace("│", " ").split()[-1])


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_refused_run_leaves_nothing(granprune, small, tmp_path):
    ended = granprune("fit", f"--config={small}", "--pruning.criterion", "Statistical")
    assert ended.code == 2 and ended.err.startswith("granprune: error: criterion Statistical cannot score")
    assert not (tmp_path / "runs").exists()


def test_options_that_are_true_or_false_stand_alone(finished, launch):
    folder, _, directory = finished
    ended = launch(folder, "test", "--report_dimensionality", "--config", directory / "config.yaml")
    assert ended.code == 0 and "hidden.1" in ended.out


def test_a_runs_configuration_with_another_density_is_another_run(finished, launch):
    folder, _, directory = finished
    ended = launch(folder, "test", "--config", directory / "config.yaml", "--pruning.density", "0.3")
    assert ended.code == 2 and "-d0.3-" in ended.err
