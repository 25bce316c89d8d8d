"""What a study shows while it goes: a live table on a terminal, a line a run elsewhere."""

import time
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from granprune.run.tables import percent
from granprune.study.resolve import Run
from granprune.study.state import State, duration, state
from granprune.study.work import LOG

MAX_ROWS = 20


class StudyView:
    """Follows runs by their directories.

    Args:
        runs: All runs of the study.
        console: Where to write.
    """

    def __init__(self, runs: Sequence[Run], console: Console) -> None:
        self.runs = runs
        self.console = console
        self.started = time.time()
        self.states: dict[str, State] = {run.name: state(run) for run in runs}
        self.first: dict[str, tuple[float, int]] = {}  # when a run was first seen running, and its step
        self.failures: dict[str, str] = {}
        self.steps_before = sum(now.step for now in self.states.values())
        self.live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> "StudyView":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self.live.stop()

    def update(self, ended: Mapping[str, str | None]) -> None:
        """Look at the directories again.

        Args:
            ended: Runs that have just ended -> what went wrong, None if nothing.
        """
        for run in self.runs:
            if not self.states[run.name].done:
                self.states[run.name] = state(run)
        for name, error in ended.items():
            self.failures |= {name: error} if error else {}
            self.console.print(self.line(name, error), highlight=False, soft_wrap=True)
        if self.live.is_started:
            self.live.update(self.render(), refresh=True)

    def line(self, name: str, error: str | None) -> Text:
        """A finished run, for a log."""
        done = sum(now.done for now in self.states.values())
        outcome = f"failed: {error}" if error else f"test {percent(self.states[name].accuracy)}"
        return Text(f"{done}/{len(self.runs)}  {name}  {outcome}", style="red" if error else "")

    def render(self) -> RenderableType:
        """The table of running runs, and a line about the whole study."""
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        table.add_column("Run", overflow="ellipsis", no_wrap=True)
        for heading in "Round", "Step", "Test", "Time left":
            table.add_column(heading, justify="right", no_wrap=True)
        running = [run for run in self.runs if self.is_running(run)]
        for run in running[:MAX_ROWS]:
            table.add_row(*self.row(run))
        hidden = f", {len(running) - MAX_ROWS} of them not shown" if len(running) > MAX_ROWS else ""
        return Group(table, Text(f"{len(running)} running{hidden}; {self.summary()}"))

    def row(self, run: Run) -> tuple[str, ...]:
        """A running run."""
        now = self.states[run.name]
        step = f"{now.step:,}/{run.steps:,}"
        return run.name, str(now.round), step, percent(now.accuracy), duration(self.left(run))

    def summary(self) -> str:
        """The whole study in one line."""
        done = sum(now.done for now in self.states.values())
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"{done} of {len(self.runs)} done{failed}, time left {duration(self.total_left())}"

    def is_running(self, run: Run) -> bool:
        """Whether a worker has begun with the run since the study was started."""
        log = run.directory.path / LOG
        if self.states[run.name].done or run.name in self.failures or not log.exists():
            return False
        return log.stat().st_mtime >= self.started

    def left(self, run: Run) -> float | None:
        """Seconds that a run still takes, by its own speed."""
        now = time.time()
        step = self.states[run.name].step
        since, first = self.first.setdefault(run.name, (now, step))
        return (run.steps - step) * (now - since) / (step - first) if step > first else None

    def total_left(self) -> float | None:
        """Seconds that the study still takes, by the steps made since it was started."""
        made = sum(now.step for now in self.states.values()) - self.steps_before
        left = sum(run.steps - self.states[run.name].step for run in self.runs)
        return left * (time.time() - self.started) / made if made > 0 else None
