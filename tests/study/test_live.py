import io
import json
import os

import pytest
from rich.console import Console

from granprune.study import live
from granprune.study.live import StudyView
from granprune.study.resolve import resolve


@pytest.fixture
def runs(small_study) -> list:
    return resolve(small_study(axes={"density": [0.5, 0.25, 0.125]}).commands())


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(live.time, "time", lambda: now[0])
    return now


def view_of(runs: list) -> StudyView:
    return StudyView(runs, Console(file=io.StringIO(), width=100))


def advance(run, step: int, at: float = 1000.0) -> None:
    """Let a run have made so many steps, and its log have been written then."""
    run.directory.path.mkdir(parents=True, exist_ok=True)
    row = {"step": step, "round": step // 8, "test_accuracy": 0.5}
    run.directory.metrics.write_text(json.dumps(row) + "\n")
    log = run.directory.path / "log.txt"
    log.write_text("")
    os.utime(log, (at, at))


def finish(run) -> None:
    run.directory.path.mkdir(parents=True, exist_ok=True)
    result = {"rounds": [{}] * 3, "test_accuracy": 0.75, "training_seconds": 9.0}
    run.directory.result.write_text(json.dumps(result))


def printed(view: StudyView) -> str:
    return view.console.file.getvalue()  # type: ignore[attr-defined]


def test_a_line_a_run_that_ends(runs, clock) -> None:
    view = view_of(runs)
    finish(runs[0])
    view.update({runs[0].name: None})
    view.update({runs[1].name: "out of luck"})
    assert printed(view).splitlines() == [
        f"1/3  {runs[0].name}  test 75.00 %",
        f"1/3  {runs[1].name}  failed: out of luck",
    ]
    assert view.summary().startswith("1 of 3 done, 1 failed, time left")


def test_table_holds_the_running_runs_only(runs, clock) -> None:
    view = view_of(runs)
    finish(runs[0])
    advance(runs[1], 8)
    advance(runs[2], 8, at=900.0)  # of an earlier day's study
    view.update({})
    view.console.print(view.render())
    assert runs[1].name[:30] in printed(view)
    assert runs[0].name[:30] not in printed(view).replace(runs[1].name[:30], "")
    assert (
        "8/24" in printed(view) and "50.00 %" in printed(view) and "1 running; 1 of 3 done" in printed(view)
    )


def test_time_left_by_own_speed(runs, clock) -> None:
    view = view_of(runs)
    advance(runs[0], 4)
    view.update({})
    assert view.left(runs[0]) is None
    clock[0] += 10
    advance(runs[0], 9)
    view.update({})
    assert view.left(runs[0]) == 30.0  # 15 steps, two seconds each
    assert view.total_left() == pytest.approx((72 - 9) * 10 / 9)


def test_names_are_not_markup(runs, clock) -> None:
    view = view_of(runs)
    view.update({runs[0].name: "[bold]no[/bold]"})
    assert "[bold]no[/bold]" in printed(view)
