"""Signals that ask a run to stop: it finishes the step, saves and leaves."""

import signal
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Trainer

EXIT_INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: try again later
AGREE_EVERY = 20  # steps between two questions whether another rank was asked to stop


class Interrupted(Exception):
    """A run stopped on request, with everything saved."""

    def __init__(self, signum: int, directory: Path, step: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(signum).name} after step {step}, saved in {directory}; "
            f"run the same command again to go on"
        )


class Preemption:
    """Remembers a request to stop until the run has reached a place where it can.

    Lightning's own handlers save inside the signal, where a step or a pruning may be half done.
    """

    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        """Take over the signals."""
        self._before = {signum: signal.signal(signum, self._remember) for signum in self.signals}

    def stop_listening(self) -> None:
        """Give the signals back."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}

    def agreed(self, trainer: Trainer, step: int) -> int:
        """The signal that all ranks act on at this step, or 0."""
        if trainer.world_size == 1:
            return self.received
        if step % AGREE_EVERY:
            return 0
        received = torch.tensor(self.received, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(received, reduce_op="max"))

    def requeue(self, trainer: Trainer, signum: int) -> None:
        """On SLURM, hand the job back to the queue by Lightning's own handler."""
        connector: Any = trainer._accelerator_connector
        environment = connector.cluster_environment
        if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
            return
        if signum == (environment.requeue_signal or signal.SIGUSR1):
            trainer._signal_connector._slurm_sigusr_handler_fn(signum, None)  # type: ignore[arg-type]
            if trainer.is_global_zero:  # Lightning's own checkpoint is not needed beside ours
                for path in Path(trainer.default_root_dir).glob("hpc_ckpt_*.ckpt"):
                    path.unlink()

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        if self.received == signal.SIGINT and signum == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice: stop at once
        self.received = signum
