"""Measurements for the terminal."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from granprune.deploy.bench.forms import OWN

Row = dict[str, Any]


def table(rows: Sequence[Row]) -> Table:
    """What was measured together, one line a form."""
    first = rows[0]
    threads = f"{first['threads']} thread{'s' * (first['threads'] > 1)}"
    title = f"{first['architecture']}, batch {first['batch']}, {threads}"
    printed = Table(box=None, padding=(0, 2, 0, 0), title=title, title_justify="left")
    for heading in "Network", "Engine":
        printed.add_column(heading, no_wrap=True)
    for heading in "ms", "quartiles", "images/s", "GMAC/s", "best dense", "eager", "error":
        printed.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        compact = " compact" if row["variant"] == "compact" else ""
        printed.add_row(
            row["network"] + compact,
            row["engine"],
            f"{row['milliseconds']:.3f}",
            f"{row['low']:.3f}-{row['high']:.3f}",
            f"{row['images_per_second']:,.0f}",
            f"{row['gmacs_per_second']:.1f}",
            _times(row["over_best_dense"]),
            _times(row["over_eager"]),
            f"{row['error']:.0e}",
        )
    return printed


def conclusions(rows: Sequence[Row]) -> list[str]:
    """Which dense engine was best, and how each pruned network compares with it."""
    lines = []
    if rows[0]["best_dense"] is None:
        return ["no dense engine to compare with"]
    lines.append(f"best dense float32 engine: {rows[0]['best_dense']}")
    own = next((row for row in rows if row["variant"] == "dense" and row["engine"] == OWN), None)
    for row in fastest(rows):
        line = f"{row['network']}: {row['engine']}{' (compact)' * (row['variant'] == 'compact')}"
        line += f" {_times(row['over_best_dense'])} of the best dense"
        if row["over_eager"] is not None:
            line += f", {_times(row['over_eager'])} of torch eager"
        if own is not None and row["engine"] == OWN:  # its ratio to the best dense, in two factors
            shares = _times(own["over_best_dense"]), _times(row["over_own_dense"])
            line += f" = {shares[0]} by the engine * {shares[1]} by sparsity"
        lines.append(line)
    return lines


def fastest(rows: Sequence[Row]) -> list[Row]:
    """The fastest float32 form of each pruned network among rows that were measured together."""
    found: dict[str, Row] = {}
    for row in rows:
        name = row["run"] or row["network"]
        known = found.get(name)
        if row["variant"] != "dense" and (known is None or row["milliseconds"] < known["milliseconds"]):
            found[name] = row
    return list(found.values())


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}x"
