import io
import re
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.demos.boring_classes import BoringModel
from rich.console import Console

from granprune.run.progress import RunBar, RunProgress
from granprune.schedule import AtInit, Iterative, Never

ROUNDS = Iterative(rounds=2, steps=4, rewind_step=1)  # 4 + 3 + 3 steps


@pytest.fixture(autouse=True)
def able_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")


class Toy(BoringModel):
    def __init__(self, schedule, said=None):
        super().__init__()
        self.schedule = schedule
        self.said = said
        self.network = SimpleNamespace(masks={"a": torch.tensor([True, True, True, True])})

    def training_step(self, batch, batch_idx):
        if self.said:
            self.print(self.said)
        return super().training_step(batch, batch_idx)


class Driver(Callback):
    """Plays the parts of the pruning callback and the recorder."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        step, schedule = trainer.global_step, module.schedule
        if step and schedule.ends_round(step):
            module.network.masks["a"][schedule.round_at(step)] = False
            self.call(trainer, "on_prune", module, schedule.round_at(step), {})

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        step = trainer.global_step
        if module.schedule.ends_round(step):
            last = module.schedule.round_at(step - 1)
            row = {"step": step, "round": last, "density": 0.5, "train_loss": 1.5, "test_accuracy": 0.8421}
            self.call(trainer, "on_evaluation", module, row)
            counts = dict.fromkeys(("components", "kept", "parameters", "kept_parameters"), 7)
            macs = dict.fromkeys(("macs", "effective_macs", "dense_macs"), 9)
            record = {**row, **counts, **macs, "dead_layers": [], "layers": []}
            self.call(trainer, "on_round_end", module, record)

    def call(self, trainer, hook, *args):
        for callback in trainer.callbacks:
            getattr(callback, hook, lambda *args: None)(trainer, *args)


def run(progress, module, driver=None):
    trainer = Trainer(
        accelerator="cpu",
        max_steps=module.schedule.total_steps,
        callbacks=[driver or Driver(), progress],
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(module)
    return trainer


def terminal(width=90):
    return Console(
        file=io.StringIO(), force_terminal=True, force_interactive=True, width=width, color_system=None
    )


def plain():
    return Console(file=io.StringIO(), force_terminal=False, width=80)


def bar_at(schedule, step, round):
    bar = RunBar(schedule, step, terminal())
    bar.round = round
    return bar


@pytest.mark.parametrize(
    ("step", "round", "where"),
    [
        (0, 0, "round 0/2  step 0/4"),
        (3, 0, "round 0/2  step 3/4"),
        (4, 0, "round 0/2  step 4/4"),  # the round is complete, the pruning comes with the next batch
        (4, 1, "round 1/2  step 1/4"),  # pruned and rewound to step 1
        (6, 1, "round 1/2  step 3/4"),
        (7, 1, "round 1/2  step 4/4"),
        (7, 2, "round 2/2  step 1/4"),
        (10, 2, "round 2/2  step 4/4"),
    ],
)
def test_the_headline_says_where_the_run_is(step, round, where):
    assert bar_at(ROUNDS, step, round).headline().startswith(where)


@pytest.mark.parametrize("step", range(10))
def test_a_resumed_bar_is_in_the_round_of_the_last_step(step):
    assert RunBar(ROUNDS, step, terminal()).round == ROUNDS.round_at(max(step - 1, 0))


def test_runs_without_rounds():
    assert RunBar(Never(steps=5), 2, terminal()).headline().startswith("dense  step 2/5")
    assert RunBar(AtInit(steps=5), 2, terminal()).headline().startswith("round 1/1  step 2/5")


def test_density_and_accuracy_follow():
    bar = bar_at(ROUNDS, 4, 1)
    bar.density, bar.accuracy = 0.25, 0.8421
    assert bar.headline().endswith("density 0.2500  test 84.21 %")


def test_a_terminal_ends_with_the_complete_run():
    console = terminal()
    run(RunProgress(console), Toy(ROUNDS))
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())
    headline, bar = [line for line in shown.splitlines() if line.strip()][-2:]  # splits at \r as well
    assert headline.strip() == "round 2/2  step 4/4  density 0.5000  test 84.21 %"
    assert "100 %" in bar
    assert bar.rstrip().endswith("left")
    assert "steps/s" in bar
    assert [f"Round {i}" in shown for i in (0, 1, 2, 3)] == [True, True, True, False]


def test_a_resumed_run_counts_on(tmp_path):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if trainer.global_step == 5:
                trainer.save_checkpoint(tmp_path / "at-5.ckpt")
                trainer.should_stop = True

    options = {
        "accelerator": "cpu",
        "max_steps": 10,
        "limit_val_batches": 0,
        "logger": False,
        "enable_checkpointing": False,
    }
    Trainer(**options, callbacks=[Stop()], enable_progress_bar=False).fit(Toy(ROUNDS))

    seen = []

    class Look(Callback):
        def on_train_start(self, trainer, module):
            bar = trainer.progress_bar_callback.bar
            seen.append((bar.tasks[0].completed, bar.tasks[0].total, bar.round, bar.step_in_round()))

    Trainer(**options, callbacks=[RunProgress(terminal()), Look()]).fit(
        Toy(ROUNDS), ckpt_path=tmp_path / "at-5.ckpt"
    )
    assert seen == [(5, 10, 1, 2)]


def test_elsewhere_there_are_lines_and_tables_only():
    console = plain()
    run(RunProgress(console), Toy(ROUNDS))
    shown = console.file.getvalue()
    assert "\x1b" not in shown
    assert "\r" not in shown
    lines = [line for line in shown.splitlines() if line.startswith("step ")]
    assert lines == [
        f"step {step}  round {round}  density 0.5000  train loss 1.5000  test accuracy 84.21 %"
        for step, round in ((4, 0), (7, 1), (10, 2))
    ]
    assert shown.count("whole network") == 3


@pytest.mark.parametrize("console", [terminal, plain])
def test_disabled_shows_nothing(console):
    progress = RunProgress(console())
    progress.disable()
    run(progress, Toy(ROUNDS))
    assert progress.console.file.getvalue() == ""
    assert not progress.is_enabled


def test_other_ranks_show_nothing():
    progress = RunProgress(terminal())
    progress.setup(SimpleNamespace(is_global_zero=False), Toy(ROUNDS), "fit")
    assert not progress.is_enabled


def test_it_takes_the_place_of_the_usual_bar():
    progress = RunProgress(plain())
    trainer = run(progress, Toy(ROUNDS))
    assert [c for c in trainer.callbacks if isinstance(c, ProgressBar)] == [progress]


def test_what_a_module_prints_stands_above_the_bar(capsys):
    console = Console(force_terminal=True, force_interactive=True, width=90, color_system=None)
    run(RunProgress(console), Toy(ROUNDS, said="loss of [bold] 3"))
    assert capsys.readouterr().out.count("loss of [bold] 3\n") == ROUNDS.total_steps


def test_an_exception_gives_the_terminal_back():
    class Fail(Driver):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            raise RuntimeError("on purpose")

    progress = RunProgress(terminal())
    with pytest.raises(RuntimeError, match="on purpose"):
        run(progress, Toy(ROUNDS), Fail())
    assert progress.bar is None
    shown = progress.console.file.getvalue()
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is visible again
