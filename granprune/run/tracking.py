"""Weights & Biases: online with a key, offline without, and never in the run's way."""

import logging
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from granprune.errors import UserError
from granprune.run.directory import RunDirectory

log = logging.getLogger(__name__)
LOCAL_MODES = ("offline", "dryrun", "disabled")
UPLOAD_SECONDS = 300.0  # how long the end of a run waits for a server that has stopped answering
BINS = 64


def wandb_logger(
    name: str,
    run_id: str,
    save_dir: Path,
    project: str,
    group: str | None = None,
    tags: list[str] | None = None,
) -> WandbLogger:
    """A logger that tracks online if an API key is configured, else offline.

    The environment variable WANDB_MODE, and what `wandb offline` or `wandb disabled` has set, is
    respected. It never prompts. If the server cannot be reached or refuses the key, it says so and
    tracks offline.

    Args:
        name: The run's name.
        run_id: Its lasting identity: under the same one, a resumed run goes on.
        save_dir: Folder that the run's `wandb` folder is put into.
        project: The W&B project.
        group: Runs that belong together.
        tags: Words to filter runs by.

    Raises:
        UserError: WANDB_MODE is unknown, or asks to be online when no API key is configured; or the
            server refuses the run.
    """
    import wandb

    # Other ranks never start a run, so that they need not ask the server.
    mode = choose_mode() if getattr(rank_zero_only, "rank", 0) == 0 else "offline"
    settings = wandb.Settings(silent=mode in LOCAL_MODES, finish_timeout=UPLOAD_SECONDS)
    logger = Tracker(
        name=name,
        id=run_id,
        save_dir=save_dir,
        project=project,
        group=group,
        tags=tags,
        mode=mode,
        settings=settings,
    )
    try:
        _ = logger.experiment  # starts the run
    except wandb.errors.Error as error:
        raise UserError(f"W&B refuses the run: {error}; WANDB_MODE=offline tracks without it") from error
    return logger


def choose_mode() -> str:
    """How to track: what the user has set, else online or offline by whether there is a key."""
    import wandb

    asked = os.environ.get("WANDB_MODE")
    modes = get_args(wandb.Settings.model_fields["mode"].annotation)
    if asked and asked not in modes:
        raise UserError(f"WANDB_MODE is {asked!r}: it must be one of {', '.join(modes)}")
    mode = wandb.setup().settings.mode
    if mode in LOCAL_MODES:
        return mode
    try:
        if wandb.login(prompt=False):
            return mode
    except wandb.errors.AuthenticationError as error:
        log.warning("W&B is tracked offline: %s", error)
        return "offline"
    if asked:
        raise UserError(
            f"WANDB_MODE is {asked}, but no W&B API key is configured: run `wandb login`, or unset "
            f"WANDB_MODE to track offline"
        )
    return "offline"


class Tracker(WandbLogger):
    """A W&B logger whose run ends with the trainer's, and that tells how to upload it if offline."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._wandb_init.pop("anonymous")  # Lightning always passes it on, and W&B warns about it

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Finish the run.

        Args:
            status: "success", or anything else for a run that was cut off.
        """
        super().finalize(status)
        if self._experiment is None:
            return
        run, self._experiment = self._experiment, None  # what comes later, such as a test, starts anew
        run.finish(exit_code=0 if status == "success" else 1)
        if run.offline:
            print(f"W&B: offline run, upload it with: wandb sync {shlex.join(offline_folders(run))}")


def offline_folders(run: Any) -> list[str]:
    """Where an offline run lies, oldest part first: each resume has begun a new one."""
    folder = Path(run.settings.sync_dir)
    return [str(path) for path in sorted(folder.parent.glob(f"offline-run-*-{run.id}"))]


class Tracking(Callback):
    """Send scores, round tables and the figure to W&B; without a W&B logger it does nothing.

    The figure is looked for in the trainer's `default_root_dir`.
    """

    def on_prune(
        self, trainer: Trainer, module: LightningModule, round: int, scores: Mapping[str, Tensor]
    ) -> None:
        """Log a histogram of each layer's scores."""
        for logger in _trackers(trainer):
            histograms = {f"scores/{name}": _histogram(score) for name, score in scores.items()}
            logger.log_metrics({"round": round, **histograms}, step=trainer.global_step)

    def on_round_end(self, trainer: Trainer, module: LightningModule, record: Mapping[str, Any]) -> None:
        """Log the round's table and totals, and the figure so far."""
        figure = RunDirectory(Path(trainer.default_root_dir)).figure
        for logger in _trackers(trainer):
            totals = {f"round_end/{k}": v for k, v in record.items() if isinstance(v, int | float)}
            logger.log_metrics(totals, step=trainer.global_step)
            columns = list(record["layers"][0])
            rows = [[layer[column] for column in columns] for layer in record["layers"]]
            logger.log_table(f"layers/round_{record['round']}", columns, rows, step=trainer.global_step)
            if figure.exists():
                logger.log_image("accuracy_over_density", [str(figure)], step=trainer.global_step)


def _trackers(trainer: Trainer) -> list[WandbLogger]:
    loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
    return loggers if trainer.is_global_zero else []


def _histogram(scores: Tensor) -> Any:
    import wandb

    values = scores.detach().float().cpu()
    return wandb.Histogram(np_histogram=np.histogram(values[values.isfinite()].numpy(), bins=BINS))
