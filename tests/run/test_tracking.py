import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from granprune.errors import UserError
from granprune.run.directory import RunDirectory
from granprune.run.figure import accuracy_over_density
from granprune.run.tracking import Tracking, choose_mode, wandb_logger

LAYER = {"name": "a", "components": 4, "kept": 2, "density": 0.5, "macs": 64}
RECORD = {"round": 1, "step": 2, "density": 0.5, "test_accuracy": 0.75, "dead_layers": [], "layers": [LAYER]}
SCORES = {"a": torch.tensor([0.0, 1.0, 1.0, float("inf")])}


@pytest.fixture(autouse=True)
def nobody(tmp_path, monkeypatch):
    """A user without key, settings or environment, in an empty folder."""
    import wandb

    for variable in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "home/config"))
    monkeypatch.chdir(tmp_path)
    wandb.teardown()  # forget the settings of this process
    yield
    wandb.teardown()


class Events(Callback):
    """Plays the parts of the pruning callback and the recorder, for two steps."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        for logger in trainer.loggers:
            logger.log_metrics({"step": trainer.global_step, "test_accuracy": 0.75}, step=trainer.global_step)
        tracking = next(c for c in trainer.callbacks if isinstance(c, Tracking))
        if trainer.global_step == 1:
            tracking.on_prune(trainer, module, 1, SCORES)
        else:
            tracking.on_round_end(trainer, module, RECORD)


class Fail(Events):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        raise RuntimeError("on purpose")


def logger_in(folder):
    return wandb_logger("a run", "id-1", folder, project="p", group="g", tags=["Weights", "SNIP"])


def fit(folder, logger, events=None):
    Trainer(
        accelerator="cpu",
        max_steps=2,
        logger=logger,
        default_root_dir=folder,
        callbacks=[events or Events(), Tracking()],
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(BoringModel())


def records(folder):
    """What W&B has written: protobuf messages in a log of LevelDB's format.

    The log is 7 bytes of W&B's, then blocks of 32 KiB. A record's fragments each have a checksum
    (4 bytes), a length (2) and a type (1): whole, first, middle or last.
    """
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # until then the end of the file may be unwritten
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    position, message = 7, b""
    while position + 7 <= len(data):
        if (left := -position % 32768) and left < 7:
            position += left  # a fragment's head is never split
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        if kind == 0:
            break
        message += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(message)
            message = b""


def rows(folder):
    """The logged rows: name -> value, with names/of/nested/values joined."""
    return [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records(folder)
        if record.WhichOneof("record_type") == "history"
    ]


def test_an_offline_run_holds_every_row(tmp_path, capsys):
    accuracy_over_density([RECORD], RunDirectory(tmp_path).figure, "a run")
    fit(tmp_path, logger_in(tmp_path))

    logged = rows(tmp_path)
    assert all("trainer/global_step" in row for row in logged)
    measured = [(r["trainer/global_step"], r["test_accuracy"]) for r in logged if "test_accuracy" in r]
    assert measured == [(1, 0.75), (2, 0.75)]

    (histogram,) = (row["scores/a/values"] for row in logged if "scores/a/values" in row)
    assert sum(histogram) == 3  # the infinite score has no place
    assert (histogram[0], histogram[-1]) == (1, 2)

    (end,) = (row for row in logged if "round_end/density" in row)
    assert (end["trainer/global_step"], end["round_end/density"], end["round_end/round"]) == (2, 0.5, 1)

    (table,) = (row["layers/round_1/path"] for row in logged if "layers/round_1/path" in row)
    (folder,) = tmp_path.glob("wandb/offline-run-*")
    content = json.loads((folder / "files" / table).read_text())
    assert content == {"columns": list(LAYER), "data": [list(LAYER.values())]}

    key = "accuracy_over_density/filenames"
    ((name,),) = (row[key] for row in logged if key in row)
    assert (folder / "files" / name).read_bytes() == RunDirectory(tmp_path).figure.read_bytes()

    (run,) = (record.run for record in records(tmp_path) if record.WhichOneof("record_type") == "run")
    assert (run.run_id, run.display_name, run.project, run.run_group) == ("id-1", "a run", "p", "g")
    assert list(run.tags) == ["Weights", "SNIP"]

    printed = capsys.readouterr()
    assert printed.out.splitlines() == [f"W&B: offline run, upload it with: wandb sync {folder}"]
    assert "wandb:" not in printed.err


def test_a_failed_run_can_be_uploaded_too(tmp_path, capsys):
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(tmp_path, logger_in(tmp_path), Fail())
    (folder,) = tmp_path.glob("wandb/offline-run-*")
    assert capsys.readouterr().out == f"W&B: offline run, upload it with: wandb sync {folder}\n"
    (end,) = (r.exit for r in records(tmp_path) if r.WhichOneof("record_type") == "exit")
    assert end.exit_code == 1


def test_disabled_writes_and_says_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    fit(tmp_path, logger_in(tmp_path))
    assert not list(tmp_path.rglob("*.wandb"))
    assert capsys.readouterr().out == ""


def test_without_a_logger_nothing_happens(tmp_path):
    fit(tmp_path, False)
    assert list(tmp_path.iterdir()) == []


def test_without_a_key_the_run_is_offline():
    assert choose_mode() == "offline"
    assert "WANDB_MODE" not in os.environ


@pytest.mark.parametrize("mode", ["offline", "dryrun", "disabled"])
def test_the_environment_has_its_say(mode, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert choose_mode() == mode


@pytest.mark.parametrize("mode", [None, "online", "shared"])
def test_with_a_key_the_run_is_online(mode, monkeypatch):
    import wandb

    if mode:
        monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setattr(wandb, "login", lambda *, prompt: not prompt)
    assert choose_mode() == (mode or "online")


def test_online_needs_a_key(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(UserError, match="WANDB_MODE is online, but no W&B API key is configured"):
        choose_mode()


def test_an_unknown_mode_is_refused(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "on")
    with pytest.raises(UserError, match="WANDB_MODE is 'on': it must be one of online, offline"):
        choose_mode()


def test_a_server_out_of_reach_makes_the_run_offline(monkeypatch, caplog):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "1")
    assert choose_mode() == "offline"
    (line,) = (r.message for r in caplog.records if r.name == "granprune.run.tracking")
    assert line.startswith("W&B is tracked offline: ")
    assert "127.0.0.1:9" in line


def test_a_refused_run_ends_in_one_line(tmp_path, monkeypatch):
    import wandb

    def refuse(**options):
        raise wandb.errors.CommError("permission denied")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(UserError, match="W&B refuses the run: permission denied; WANDB_MODE=offline"):
        logger_in(tmp_path)


@pytest.mark.slow
def test_wandb_is_imported_only_when_used():
    code = "import sys, granprune.run.tracking; sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
