"""Measurements as rows: medians, their spread, and ratios of paired rounds."""

import csv
import io
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from granprune import __version__
from granprune.deploy.bench.forms import BFLOAT16, OWN
from granprune.deploy.bench.measure import Group, Timing
from granprune.run.checkpoint_io import write_atomically

Row = dict[str, Any]


def rows(group: Group) -> list[Row]:
    """A row for each form that was measured together."""
    dense = {t.form: t for t in group.timings if t.variant == "dense"}
    rival = best(group)
    references = {
        "over_best_dense": rival,
        "over_eager": dense.get("torch eager"),
        "over_own_dense": dense.get(OWN),
    }
    return [
        {
            **_about(timing),
            "batch": group.batch,
            "threads": group.threads,
            **_numbers(timing, group.batch),
            "best_dense": rival.form if rival else None,
            **{name: ratio(reference, timing) for name, reference in references.items()},
        }
        for timing in group.timings
    ]


def best(group: Group) -> Timing | None:
    """The fastest float32 form of the dense network, our own engine left out."""
    rivals = [t for t in group.timings if t.variant == "dense" and t.form not in (OWN, BFLOAT16)]
    return min(rivals, key=lambda timing: np.median(timing.seconds), default=None)


def ratio(slow: Timing | None, fast: Timing) -> float | None:
    """How many times faster, as the median over rounds; None if there is nothing to compare with."""
    return float(np.median(np.divide(slow.seconds, fast.seconds))) if slow else None


def machine() -> dict[str, Any]:
    """What the measurements were made on; load is the number of processes that wanted to run before."""
    return {
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "granprune": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def write_csv(table: Sequence[Row], path: Path) -> None:
    """Write rows, but for the single rounds."""
    text = io.StringIO()
    columns = [column for column in table[0] if column != "seconds"]
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    write_atomically(path, text.getvalue().encode())


def write_json(table: Sequence[Row], missing: Sequence[str], about: Row, path: Path) -> None:
    """Write everything: the machine, the rows with every round's seconds, and what is missing."""
    whole = {"machine": about, "missing": list(missing), "rows": list(table)}
    write_atomically(path, (json.dumps(whole, indent=1) + "\n").encode())


def _about(timing: Timing) -> Row:
    subject, counts = timing.subject, timing.subject.counts
    dense = timing.variant == "dense"
    return {
        "architecture": subject.architecture,
        "task": subject.task,
        "data": subject.data,
        "network": subject.name,
        "run": subject.run,
        "granularity": None if dense else subject.granularity,
        "criterion": None if dense else subject.criterion,
        "density": counts.density,
        "accuracy": subject.accuracy,
        "macs": counts.effective_macs,
        "dense_macs": counts.dense_macs,
        "variant": timing.variant,
        "engine": timing.form,
        "precision": "bfloat16" if timing.form == BFLOAT16 else "float32",
    }


def _numbers(timing: Timing, batch: int) -> Row:
    low, middle, high = np.quantile(timing.seconds, [0.25, 0.5, 0.75])
    return {
        "milliseconds": 1e3 * middle,
        "low": 1e3 * low,
        "high": 1e3 * high,
        "images_per_second": batch / middle,
        "gmacs_per_second": _about(timing)["macs"] * batch / middle / 1e9,
        "error": timing.error,
        "seconds": timing.seconds,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:  # not Linux
        return platform.processor()
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
