"""What a run shows while it goes: one bar over all rounds, and a table when a round ends."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from granprune.masking import density
from granprune.run.tables import density_text, percent, round_table

REFRESH_SECONDS = 1.0  # drawing takes 2 ms


class RunProgress(ProgressBar):
    """A bar over the whole run on a terminal, a line an evaluation elsewhere; on rank 0 only.

    The module has to bring its `schedule` and a `network` with `masks`.

    Args:
        console: Where to write; standard output if not given.
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self.console = console
        self.bar: RunBar | None = None
        self._enabled = True
        self._next_refresh = 0.0

    @property
    def is_enabled(self) -> bool:
        """Whether anything is shown; Lightning asks before it prints through `print`."""
        return self._enabled

    def enable(self) -> None:
        """Show progress from the next run on."""
        self._enabled = True

    def disable(self) -> None:
        """Show nothing."""
        self._enabled = False
        self._stop()

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.console = self.console or Console()  # made late: other processes could not take it over
        if self._enabled and self.console.is_interactive:
            self.bar = RunBar(module.schedule, trainer.global_step, self.console)
            self.bar.density = current_density(module)
            self.bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.bar is not None and time.monotonic() >= self._next_refresh:
            self._refresh(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *unused: Any) -> None:
        if self.bar is not None and time.monotonic() >= self._next_refresh:
            self._refresh(trainer)  # the clock goes on while the network is evaluated

    def on_prune(
        self, trainer: Trainer, module: LightningModule, round: int, scores: Mapping[str, Any]
    ) -> None:
        """Show the new round and its density."""
        if self.bar is not None:
            self.bar.round = round
            self.bar.density = current_density(module)

    def on_evaluation(self, trainer: Trainer, module: LightningModule, row: Mapping[str, Any]) -> None:
        """Show an evaluation: in the bar, or as a line where there is none."""
        if self.bar is not None:
            self.bar.accuracy = row.get("test_accuracy")
            self._refresh(trainer)
        elif self._enabled and self.console is not None:
            self.console.print(evaluation_line(row), highlight=False, soft_wrap=True)

    def on_round_end(self, trainer: Trainer, module: LightningModule, record: Mapping[str, Any]) -> None:
        """Print the table of the round."""
        if self._enabled and self.console is not None:
            self.console.print(round_table(record), "", sep="\n")

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self.bar is not None:
            self._refresh(trainer)
        self._stop()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _refresh(self, trainer: Trainer) -> None:
        assert self.bar is not None
        self.bar.show(trainer.global_step)
        self._next_refresh = time.monotonic() + REFRESH_SECONDS

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


class RunBar(Progress):
    """Two lines: where the run is, and how long it takes. Drawn on request only, without a thread.

    Args:
        schedule: The run's rounds and steps; see `granprune.schedule.Schedule`.
        step: Steps already made, by an earlier process.
        console: The terminal.
    """

    def __init__(self, schedule: Any, step: int, console: Console) -> None:
        self.schedule = schedule
        self.step = step
        self.round: int = schedule.round_at(max(step - 1, 0))  # a resumed run has yet to prune
        self.density = 1.0
        self.accuracy: float | None = None
        super().__init__(
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:.0f} %"),
            StepsPerSecond(),
            TimeElapsedColumn(),
            TextColumn("elapsed,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            auto_refresh=False,
            console=console,
            expand=True,
        )
        self.whole_run = self.add_task("", total=schedule.total_steps, completed=step)

    def show(self, step: int) -> None:
        """Move to `step`, the number of steps made, and redraw."""
        self.step = step
        self.update(self.whole_run, completed=step, refresh=True)

    def get_renderables(self) -> Iterable[RenderableType]:
        """The headline, and the bar below it."""
        yield Text(self.headline(), overflow="ellipsis", no_wrap=True)
        yield from super().get_renderables()

    def headline(self) -> str:
        """Round, step in the round, density and the last test accuracy."""
        rounds = self.schedule.rounds
        where = f"round {self.round}/{rounds}" if rounds else "dense"
        steps = f"step {self.step_in_round():,}/{self.schedule.steps:,}"
        return f"{where}  {steps}  density {density_text(self.density)}  test {percent(self.accuracy)}"

    def step_in_round(self) -> int:
        """Steps of the current round that are made, rewound ones included."""
        if self.step == self.schedule.total_steps or self.schedule.round_at(self.step) > self.round:
            return self.schedule.steps  # complete, but for the pruning that comes with the next batch
        return self.schedule.position(self.step)


class StepsPerSecond(ProgressColumn):
    """The speed of this process over the last half minute."""

    def render(self, task: Task) -> Text:
        return Text("- steps/s" if task.speed is None else f"{task.speed:,.1f} steps/s")


def current_density(module: Any) -> float:
    """The fraction of the module's components that are kept."""
    return density(module.network.masks)


def evaluation_line(row: Mapping[str, Any]) -> str:
    """A metrics row for a log file.

    >>> evaluation_line({"step": 1500, "round": 1, "density": 0.5, "test_accuracy": 0.875})
    'step 1,500  round 1  density 0.5000  train loss -  test accuracy 87.50 %'
    """
    loss = "-" if row.get("train_loss") is None else f"{row['train_loss']:.4f}"
    where = f"step {row['step']:,}  round {row['round']}  density {density_text(row['density'])}"
    return f"{where}  train loss {loss}  test accuracy {percent(row.get('test_accuracy'))}"
