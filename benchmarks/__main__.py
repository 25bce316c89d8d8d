"""Run benchmarks, each in a process of its own, and print what they measure as a table.

    python -m benchmarks step-float32 snip --json figures.json

Rivals take turns; medians are shown, and the quartiles of the paired ratios. Let
nothing else run on the machine meanwhile.
"""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.channels_run import channels_run
from benchmarks.data_share import data_share
from benchmarks.dimensionality import ten_layers
from benchmarks.lightning_overhead import lightning_overhead
from benchmarks.measure import Row
from benchmarks.peak_share import peak_share
from benchmarks.scores import snip
from benchmarks.start_up import first_step, help_text
from benchmarks.training_step import bfloat16, float32
from granprune.errors import UserError

Benchmark = Callable[[bool], list[Row]]  # from whether to be quick
BENCHMARKS: dict[str, Benchmark] = {
    "step-float32": float32,
    "step-bfloat16": bfloat16,
    "peak-share": peak_share,
    "lightning-overhead": lightning_overhead,
    "data-share": data_share,
    "channels-run": channels_run,
    "snip": snip,
    "dimensionality": ten_layers,
    "help": help_text,
    "start-up": first_step,
}
HEADINGS = ("name", "unit", "ours", "rival", "ratio", "asked", "ok", "quartiles", "peak MiB", "floor")
SIGNS = {"at least": "≥", "at most": "≤"}


def main(words: Sequence[str] | None = None) -> int:
    """Run the benchmarks that are named.

    Returns:
        0 if each reaches what is asked of it, or is to be quick; 1 if one misses it; 2 if one cannot run.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works, not how fast")
    options = parser.parse_args(words)
    for name in options.names:
        if name not in BENCHMARKS:
            parser.error(f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    rows: list[Row] = []
    failed = False
    for name in options.names or BENCHMARKS:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        try:
            rows += in_process(BENCHMARKS[name], options.quick)
        except UserError as error:
            print(f"benchmarks: error: {name}: {error}", file=sys.stderr)
            failed = True  # the others are shown all the same
        if options.json:  # again after each: the rest takes minutes
            options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    Console(highlight=False, width=130).print(table(rows))
    return 2 if failed else 0 if options.quick or all(row.ok for row in rows) else 1


def in_process(benchmark: Benchmark, quick: bool) -> list[Row]:
    """Run a benchmark in a new process, whose peak memory is its own and whose patches end with it.

    Quickly, it runs in one thread: on a busy machine several would wait for each other.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, partial(torch.set_num_threads, 1) if quick else None) as processes:
        return processes.submit(benchmark, quick).result()


def table(rows: Sequence[Row]) -> Table:
    """The rows as a table, their notes below them."""
    drawn = Table(*HEADINGS, box=box.SIMPLE, caption_justify="left")
    for row in rows:
        low, high = row.spread
        drawn.add_row(
            row.name,
            row.unit,
            number(row.ours),
            number(row.rival),
            number(row.ratio),
            f"{SIGNS[row.bound]} {number(row.asked)}",
            "yes" if row.ok else "no",
            f"{number(low)} .. {number(high)}",
            f"{row.peak_memory_mib:,.0f}",
            number(row.floor),
        )
    drawn.caption = "\n".join(f"{row.name}: {row.note}" for row in rows)
    return drawn


def number(value: float | None) -> str:
    """Four digits, or a dash."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main())
