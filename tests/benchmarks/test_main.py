import json
import math
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks.measure import Pairs, faster, limited
from granprune.errors import UserError

ROWS = {
    "snip": ["snip-weights", "snip-kernels", "snip-channels", "snip-nodes"],
    "dimensionality": ["dimensionality", "dimensionality-memory"],
}
FASTER = faster("step", "ms", Pairs([2.0], [5.0]), 1.8, 1.0, "floor: one")
SLOWER = faster("step", "ms", Pairs([2.0], [3.0]), 1.8, 1.0, "floor: one")


@pytest.fixture(scope="module")
def process():
    """A process like those that benchmarks run in, with one thread."""
    context = get_context("spawn")
    with ProcessPoolExecutor(
        1, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)
    ) as processes:
        yield processes


@pytest.mark.slow
@pytest.mark.parametrize("name", command.BENCHMARKS)
def test_a_benchmark_measures_what_it_is_named_after(name, process):
    rows = process.submit(command.BENCHMARKS[name], True).result()
    assert [row.name for row in rows] == ROWS.get(name, [name])
    for row in rows:
        assert all(math.isfinite(x) and x > 0 for x in (row.ours, row.asked, row.floor, row.peak_memory_mib))
        assert (row.rival is None) == (row.ratio is None)
        assert row.spread[0] <= row.spread[1]
        assert "floor" in row.note or "ceiling" in row.note
        assert row.note.endswith("reached")


def test_bfloat16_is_measured_only_where_there_is_some(monkeypatch):
    monkeypatch.setattr("benchmarks.training_step.cpu_has_bfloat16", lambda: False)
    with pytest.raises(UserError, match="this CPU has no bfloat16 instructions"):
        command.BENCHMARKS["step-bfloat16"](False)


def test_the_command_runs_in_another_process_and_writes_rows(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "BENCHMARKS", {"here": _rows_of_another_process})
    assert command.main(["here", "--quick", "--json", str(tmp_path / "rows.json")]) == 0
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert row["ours"] != os.getpid() and row["rival"] is None and row["ok"] is True
    assert {"name", "unit", "ours", "rival", "ratio", "asked", "ok", "spread"} < row.keys()
    assert "quick: True" in capsys.readouterr().out


def _rows_of_another_process(quick):
    return [limited("here", "", [os.getpid()], 2**40, 1.0, f"quick: {quick}")]


def test_without_names_all_run_in_order_and_one_miss_is_enough(capsys, monkeypatch):
    monkeypatch.setattr(command, "in_process", lambda benchmark, quick: benchmark(quick))
    monkeypatch.setattr(command, "BENCHMARKS", {"a": lambda quick: [FASTER], "b": lambda quick: [SLOWER]})
    assert command.main([]) == 1
    assert command.main(["a"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "measuring a ...",
        "measuring b ...",
        "measuring a ...",
    ]
    assert command.main(["b", "--quick"]) == 0  # quick figures mean nothing


def test_an_unknown_name_is_refused_before_anything_runs(capsys):
    with pytest.raises(SystemExit) as end:
        command.main(["help", "snap"])
    assert end.value.code == 2
    assert "there is no benchmark 'snap'; there are step-float32, " in capsys.readouterr().err


def test_a_benchmark_that_cannot_run_says_so_in_one_line(capsys, monkeypatch):
    def broken(quick):
        raise UserError("no such thing")

    monkeypatch.setattr(command, "in_process", lambda benchmark, quick: benchmark(quick))
    monkeypatch.setattr(command, "BENCHMARKS", {"a": broken, "b": lambda quick: [FASTER]})
    assert command.main([]) == 2
    said = capsys.readouterr()
    assert said.err.splitlines()[1:] == ["benchmarks: error: a: no such thing", "measuring b ..."]
    assert "yes" in said.out  # the other one's row


def test_the_table_shows_bounds_and_notes():
    console = Console(width=130, record=True, file=open(os.devnull, "w"))
    console.print(command.table([FASTER, limited("help", "s", [1.0], 1.5, 0.25, "floor: an interpreter")]))
    text = " ".join(console.export_text().split())
    assert "step ms 2 5 2.5 ≥ 1.8 yes 2.5 .. 2.5" in text
    assert "help s 1 - - ≤ 1.5 yes 1 .. 1" in text
    assert "help: floor: an interpreter; 25 % reached" in text


def test_numbers_have_four_digits():
    assert [command.number(x) for x in (1.23456, 12345.6, None)] == ["1.235", "12,346", "-"]
