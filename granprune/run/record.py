"""What a run measures: a row an evaluation, a record a round, a result at the end."""

import json
import math
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch import __version__ as lightning_version

from granprune import __version__
from granprune.callback import IterativePruning
from granprune.classifier import Classifier
from granprune.counting import count
from granprune.dimensionality import Dimensionality
from granprune.distributed import fingerprint
from granprune.errors import UserError
from granprune.masking import density
from granprune.run.checkpoint_io import write_atomically
from granprune.run.directory import RunDirectory
from granprune.run.figure import accuracy_over_density
from granprune.run.provenance import caveat

NO_EVALUATION = 2**62  # batches until the next evaluation


class Recorder(Callback):
    """Evaluate at the end of every round and every `trainer.val_check_interval` steps, and keep it.

    Rows go to `metrics.jsonl`, round records into checkpoints and at the end into `result.json`.

    Args:
        directory: Where to write.
        pruning: The run's pruning callback.
        about: What the run is, copied into its result.
    """

    def __init__(self, directory: RunDirectory, pruning: IterativePruning, about: dict[str, Any]) -> None:
        self.directory = directory
        self.pruning = pruning
        self.about = about
        self.rounds: list[dict[str, Any]] = []
        self.seconds = 0.0  # of training, earlier processes included
        self._started = 0.0

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        assert isinstance(module, Classifier)
        count(module.network, trainer.datamodule.image_shape)  # type: ignore[attr-defined]  # refuses early
        if not trainer.limit_val_batches:  # type: ignore[attr-defined]
            raise UserError("trainer.limit_val_batches is 0, but a run is measured by its evaluations")
        if not _is_whole(trainer.val_check_interval):
            raise UserError(
                f"trainer.val_check_interval is {trainer.val_check_interval}: give the steps between two "
                f"evaluations as an integer of at least 1"
            )

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._started = time.monotonic()
        if trainer.is_global_zero:
            drop_rows_after(self.directory.metrics, trainer.global_step)

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        batches = trainer.num_training_batches
        steps_now = (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or batch_idx + 1 == batches
        due = steps_now and self._is_due(trainer, trainer.global_step + 1)
        trainer.val_check_batch = 1 if due else NO_EVALUATION

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.loggers and trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._log(trainer, {"loss": float(outputs["loss"])})

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        assert isinstance(module, Classifier)
        row = self._row(trainer, module)
        if trainer.is_global_zero:
            append_row(self.directory.metrics, row)
        self._log(trainer, row)
        _tell(trainer, "on_evaluation", module, row)
        if module.schedule.ends_round(trainer.global_step):
            self._end_round(trainer, module, row)

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        # A run that was killed after its last checkpoint has no training left to end.
        assert isinstance(module, Classifier)
        if trainer.is_global_zero and trainer.global_step >= self.pruning.schedule.total_steps:
            write_atomically(self.directory.result, _json(self._result(trainer, module)).encode())

    def state_dict(self) -> dict[str, Any]:
        elapsed = time.monotonic() - self._started if self._started else 0.0
        return {"rounds": self.rounds, "seconds": self.seconds + elapsed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rounds = state["rounds"]
        self.seconds = state["seconds"]

    def _is_due(self, trainer: Trainer, step: int) -> bool:
        return step % int(trainer.val_check_interval) == 0 or self.pruning.schedule.ends_round(step)  # type: ignore[attr-defined]

    def _row(self, trainer: Trainer, module: Classifier) -> dict[str, Any]:
        step = trainer.global_step
        last = step - 1  # the step just made, which belongs to the round that it ends
        evaluated = {name: float(value) for name, value in trainer.callback_metrics.items()}
        for name, value in evaluated.items():
            module.check_loss(name, value)
        return {
            "step": step,
            "round": self.pruning.round,
            "step_in_round": module.schedule.position(last) + 1,
            "density": density(module.network.masks),
            "learning_rate": _learning_rate(module, last),
            **module.take_training_metrics(),
            **dict(sorted(evaluated.items())),
        }

    def _log(self, trainer: Trainer, row: dict[str, Any]) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(row, step=trainer.global_step)

    def _end_round(self, trainer: Trainer, module: Classifier, row: dict[str, Any]) -> None:
        with torch.compiler.set_stance("force_eager"):
            counts = count(module.network, trainer.datamodule.image_shape)  # type: ignore[attr-defined]
        record = round_record(counts, row)
        self.rounds.append(record)
        if trainer.is_global_zero:
            note = caveat(_provenance(trainer))
            accuracy_over_density(self.rounds, self.directory.figure, self.directory.path.name, note)
        _tell(trainer, "on_round_end", module, record)

    def _result(self, trainer: Trainer, module: Classifier) -> dict[str, Any]:
        final = self.rounds[-1]
        return {
            **self.about,
            "data": _provenance(trainer),
            "steps": self.pruning.schedule.total_steps,
            "rounds": self.rounds,
            **{key: value for key, value in final.items() if key.endswith(("accuracy", "loss"))},
            "kept": final["kept"],
            "components": final["components"],
            "final_density": final["density"],
            "masks_sha256": fingerprint(module.network.masks),
            "training_seconds": self.state_dict()["seconds"],
            "threads": torch.get_num_threads(),
            "versions": {
                "granprune": __version__,
                "torch": torch.__version__,
                "lightning": lightning_version,
                "python": platform.python_version(),
            },
        }


def round_record(counts: Any, row: dict[str, Any]) -> dict[str, Any]:
    """A round in numbers: what is left of the network and how well it does.

    Args:
        counts: From `granprune.counting.count`.
        row: The evaluation that ends the round.
    """
    layers = [{**vars(layer), "density": layer.kept / layer.components} for layer in counts.layers]
    measured = {key: value for key, value in row.items() if key.endswith(("accuracy", "loss"))}
    return {
        "round": row["round"],
        "step": row["step"],
        "density": row["density"],
        "components": sum(layer.components for layer in counts.layers),
        "kept": sum(layer.kept for layer in counts.layers),
        "parameters": counts.parameters,
        "kept_parameters": counts.kept_parameters,
        "macs": counts.macs,
        "effective_macs": counts.effective_macs,
        "dense_macs": counts.dense_macs,
        "dead_layers": list(counts.dead_layers),
        "layers": layers,
        **measured,
    }


def record_dimensionality(directory: RunDirectory, found: Mapping[str, Dimensionality]) -> None:
    """Keep the effective and actual dimensions of each layer beside the run's result."""
    layers = {name: vars(layer) for name, layer in found.items()}
    write_atomically(directory.dimensionality, _json(layers).encode())


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add one line to the metrics file and see it to the disk.

    Raises:
        OSError: It cannot be written; `filename` is the file, also if the disk is full.
    """
    try:
        with open(path, "a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file; a last line that was cut off in writing does not count."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]  # what follows the last newline is no whole row
    return [json.loads(line) for line in lines]


def drop_rows_after(path: Path, step: int) -> None:
    """Remove rows that a resumed run will write again."""
    if path.exists():
        rows = [row for row in read_rows(path) if row["step"] <= step]
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def _tell(trainer: Trainer, hook: str, module: Classifier, news: dict[str, Any]) -> None:
    """Call a hook of this project on every callback that has it."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if hasattr(callback, hook):
            getattr(callback, hook)(trainer, module, news)


def _provenance(trainer: Trainer) -> dict[str, str]:
    return trainer.datamodule.provenance  # type: ignore[attr-defined]


def _learning_rate(module: Classifier, step: int) -> float:
    base = module.trainer.optimizers[0].param_groups[0]["initial_lr"]
    return base * module.learning_rate.factor(module.schedule.position(step), module.schedule.steps)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def _is_whole(interval: Any) -> bool:
    return (
        isinstance(interval, int)
        and not isinstance(interval, bool)
        and math.isfinite(interval)
        and interval >= 1
    )
