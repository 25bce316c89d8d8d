"""When checkpoints are written, what else they hold, and how a run is interrupted."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from granprune.classifier import Classifier
from granprune.errors import UserError
from granprune.masking import is_mask
from granprune.run.checkpoint_io import load
from granprune.run.directory import RunDirectory
from granprune.run.preemption import Interrupted, Preemption


class Checkpointing(Checkpoint):
    """Save the run so that going on from the file equals never having stopped.

    Args:
        every_steps: Optimizer steps between two checkpoints; every round's end is saved as well.
        keep: How many of the newest checkpoints stay.
    """

    def __init__(self, every_steps: PositiveInt = 1000, keep: PositiveInt = 2) -> None:
        self.every_steps = every_steps
        self.keep = keep
        self.directory: RunDirectory | None = None  # set by the command line; None: nothing is saved
        self.preemption = Preemption()
        self.step = 0  # the last one that was looked at
        self.random_state: dict[str, Any] | None = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.step = trainer.global_step
        if self.random_state is not None:
            set_random_state(self.random_state)
            self.random_state = None
        self.preemption.listen()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # A step that is evaluated is saved after its evaluation, which a resume would not repeat.
        if trainer.val_check_batch != 1:
            self._save_if_due(trainer, module)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save_if_due(trainer, module)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.preemption.stop_listening()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self.preemption.stop_listening()

    def state_dict(self) -> dict[str, Any]:
        return {"random": get_random_state(), "threads": torch.get_num_threads()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.random_state = state["random"]
        if state["threads"] != torch.get_num_threads():
            torch.set_num_threads(state["threads"])  # another number of threads, other rounding

    def _save_if_due(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Classifier)
        step = trainer.global_step
        if step == self.step or self.directory is None:
            return  # in the middle of a gradient accumulation, which a checkpoint does not hold
        self.step = step
        signal = self.preemption.agreed(trainer, step)
        if signal or step % self.every_steps == 0 or module.schedule.ends_round(step):
            self._save(trainer, module, self.directory)
        if signal:
            self.preemption.requeue(trainer, signal)
            raise Interrupted(signal, self.directory.path, step)

    def _save(self, trainer: Trainer, module: Classifier, directory: RunDirectory) -> None:
        module.gather_training_sums()
        module.check_loss("the training loss", module.training_sums[0].item())
        with _as_before_evaluation(trainer):
            trainer.save_checkpoint(directory.checkpoint(self.step), weights_only=False)
        if trainer.is_global_zero:
            directory.tidy(self.step, self.keep)


@contextmanager
def _as_before_evaluation(trainer: Trainer) -> Iterator[None]:
    """Show the batch as Lightning has it at `on_train_batch_end`, from where a resume starts a new epoch.

    After an evaluation at an epoch's end it would go on in the old epoch, and step without accumulating.
    """
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    ahead = progress.total.completed - progress.total.processed + 1  # 1 in an evaluation, else 0
    for counts in progress.total, progress.current:
        counts.completed -= ahead
    try:
        yield
    finally:
        for counts in progress.total, progress.current:
            counts.completed += ahead


def get_random_state() -> dict[str, Any]:
    """The global random states of torch, this rank's GPU, Python and NumPy, as tensors and plain values.

    All ranks draw the same numbers, so that rank 0's state serves them all.
    """
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Bring back what `get_random_state` gave."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))


def find_checkpoint(run: str | PathLike[str]) -> Path:
    """The checkpoint that a run directory, by its newest one, or a file name stands for.

    Raises:
        UserError: There is none.
        DamagedCheckpoint: A run's newest one is not what was written; the one before is another network.
    """
    path = Path(run)
    if path.is_file():
        return path
    if not path.exists():
        raise UserError(f"there is no checkpoint and no run directory {run}")
    saved = RunDirectory(path).saved()
    if not saved:
        raise UserError(f"{run} is neither a checkpoint nor a run directory that holds one")
    load(saved[-1])
    return saved[-1]


def load_masks(run: str | PathLike[str], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The masks of another run.

    Args:
        run: Its directory or one of its checkpoints.
        like: This run's masks: the layers and shapes asked for.

    Returns:
        Layer name -> bool mask on the CPU.

    Raises:
        UserError: The other run has another network or granularity, or no checkpoint.
    """
    state = load(find_checkpoint(run))["state_dict"]
    found = [value.bool() for key, value in state.items() if is_mask(key)]
    if [mask.shape for mask in found] != [mask.shape for mask in like.values()]:
        raise UserError(f"the masks of {run} do not fit: it has another network or granularity")
    return dict(zip(like, found, strict=True))
