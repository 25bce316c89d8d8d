import copy
import json

import pytest

from benchmarks.kill import CONFIG
from granprune.cli import PruningCLI
from granprune.run.identity import describe, fingerprint, run_name

WHERE_AND_HOW_IT_IS_WATCHED = {  # options that cannot change the result
    "checkpoint",
    "ckpt_path",
    "config",
    "data.init_args.data_dir",
    "data.init_args.device",
    "run",
    "wandb",
    *(
        f"trainer.{name}"
        for name in (
            "accelerator",
            "strategy",
            "devices",
            "num_nodes",
            "logger",
            "log_every_n_steps",
            "profiler",
            "detect_anomaly",
            "barebones",
            "inference_mode",
            "use_distributed_sampler",
            "default_root_dir",
            "model_registry",
            "enable_autolog_hparams",
            "enable_checkpointing",
            "enable_model_summary",
            "enable_progress_bar",
        )
    ),
    # The schedule, the recorder and the loaders take these over, or the command line refuses them.
    *(
        f"trainer.{name}"
        for name in (
            "max_epochs",
            "min_epochs",
            "max_steps",
            "min_steps",
            "max_time",
            "fast_dev_run",
            "num_sanity_val_steps",
            "check_val_every_n_epoch",
            "limit_predict_batches",
            "reload_dataloaders_every_n_epochs",
        )
    ),
}


class Parsed(Exception):
    pass


@pytest.fixture
def parse(monkeypatch):
    """Words after `fit --config=CONFIG` -> the resolved configuration."""

    def parsed(cli):
        raise Parsed(cli.plain)

    monkeypatch.setattr(PruningCLI, "_own_directory", parsed)
    monkeypatch.setattr("sys.argv", ["granprune"])

    def parse(*words):
        with pytest.raises(Parsed) as caught:
            PruningCLI(["fit", f"--config={CONFIG}", *words])
        return caught.value.args[0]

    return parse


def leaves(value, path=()):
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    else:
        yield path


def altered(config, path):
    changed = copy.deepcopy(config)
    *above, last = path
    inner = changed
    for key in above:
        inner = inner[key]
    inner[last] = ["altered", inner[last]]
    return changed


def is_neutral(path):
    return any(".".join(path[: i + 1]) in WHERE_AND_HOW_IT_IS_WATCHED for i in range(len(path)))


def test_every_option_that_can_change_the_result_changes_the_fingerprint(parse):
    config = parse()
    paths = [path for path in leaves(config) if path[-1] != "class_path"]  # a name needs its words
    assert len(paths) > 70
    changing = {path for path in paths if fingerprint(altered(config, path)) != fingerprint(config)}
    assert changing == {path for path in paths if not is_neutral(path)}


@pytest.mark.parametrize(
    "word",
    [
        "--seed_everything=6",
        "--model.granularity=Nodes",
        "--model.network.init_args.widths=[24,17]",
        "--model.optimizer=Adam",
        "--model.learning_rate=Constant",
        "--data.validation_fraction=0.1",
        "--pruning.criterion=SNIP",
        "--pruning.criterion=Random",
        "--pruning.scope=Layerwise",
        "--pruning.schedule.rounds=3",
        "--pruning.density=0.25",
        "--trainer.accumulate_grad_batches=2",
        "--trainer.precision=bf16-mixed",
        "--trainer.callbacks+=lightning.pytorch.callbacks.WeightAveraging",
    ],
)
def test_another_result_is_another_run(parse, word):
    assert run_name(parse(word)) != run_name(parse())


def test_the_same_result_is_the_same_run(parse, tmp_path):
    elsewhere = [
        f"--run.root={tmp_path}",
        f"--data.data_dir={tmp_path}",
        "--data.device=cpu",
        "--trainer.accelerator=auto",
        "--trainer.devices=2",
        "--trainer.strategy=ddp",
        "--trainer.num_nodes=2",
        "--trainer.enable_progress_bar=true",
        "--checkpoint.every_steps=7",
        "--checkpoint.keep=5",
        "--wandb.enabled=true",
        "--wandb.tags=[a]",
        "--run.fresh=true",
    ]
    defaults = ["--model.compile=false", "--data.augment=true", "--pruning.schedule.rewind_step=0"]
    other_words = ["--pruning.criterion=granprune.criteria.Magnitude", "--model.optimizer=torch.optim.SGD"]
    other_words += ["--model.optimizer.lr=1", "--model.optimizer.momentum=0.9"]
    other_words += ["--model.optimizer.weight_decay=0.0001"]
    name = run_name(parse())
    assert run_name(parse(*elsewhere)) == name
    assert run_name(parse(*defaults)) == name
    assert run_name(parse(*other_words)) == name


def test_it_does_not_depend_on_the_order_of_settings(parse):
    config = parse()
    turned = json.loads(json.dumps(config), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert list(turned) != list(config) and fingerprint(turned) == fingerprint(config)


def test_other_runs_count_by_their_names(parse):
    def matched(run):
        return fingerprint(parse("--pruning.criterion=FromRun", f"--pruning.criterion.run={run}"))

    assert matched("runs/a") == matched("/elsewhere/runs/a") == matched("runs/a/")
    assert matched("runs/a") != matched("runs/b")
    assert matched("runs/a/checkpoints/step=5.ckpt") == matched("/x/a/checkpoints/step=5.ckpt")
    assert matched("runs/a/checkpoints/step=5.ckpt") != matched("runs/b/checkpoints/step=5.ckpt")


def test_the_name_says_what_the_run_is(parse):
    config = parse()
    assert describe(config)["granularity"] == "Weights"
    start = "digits-dbsn-weights-magnitude-global-iterative-d0.2-s5-"
    assert run_name(config) == start + fingerprint(config)
    inverted = parse("--pruning.criterion=Inverted", "--pruning.criterion.criterion=SNIP")
    assert "-inverted.snip-" in run_name(inverted)
