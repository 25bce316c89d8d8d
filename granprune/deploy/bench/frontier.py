"""Accuracy over measured latency and over multiply-accumulates, one line a granularity."""

import io
import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from granprune.deploy.bench.tables import fastest
from granprune.run.checkpoint_io import write_atomically

Row = dict[str, Any]
# Okabe and Ito's colours, which colour-blind readers can tell apart, and a marker each.
STYLES = {
    "Weights": ("#0072b2", "o"),
    "Kernels": ("#d55e00", "s"),
    "Channels": ("#009e73", "^"),
    "Nodes": ("#009e73", "^"),
    "Blocks": ("#cc79a7", "D"),
}


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw a figure for each task and architecture whose networks were trained.

    Panels show accuracy over multiply-accumulates and over the latency of each batch size and number of
    threads, each network in its fastest deployed float32 form.

    Args:
        rows: What was measured.
        folder: Where `frontier-*.png` go.

    Returns:
        The files; none for untrained networks.
    """
    trained = defaultdict(list)
    for row in rows:
        if row["accuracy"] is not None:
            trained[row["task"], row["architecture"]].append(row)
    paths = []
    for (task, architecture), found in trained.items():
        words = re.sub(r"\W+", "-", f"{task}-{architecture.split('(')[0]}").lower()
        path = folder / f"frontier-{words}.png"
        while path in paths:
            path = path.with_stem(f"{path.stem}-2")
        _figure(found, f"{architecture.split('(')[0]} on {task}", path)
        paths.append(path)
    return paths


def _figure(rows: Sequence[Row], title: str, path: Path) -> None:
    def setting(row: Row) -> tuple[int, int]:
        return row["threads"], row["batch"]

    panels = [(key, fastest(list(same))) for key, same in groupby(sorted(rows, key=setting), setting)]
    figure = Figure(figsize=(1.5 + 4 * (1 + len(panels)), 3.8), dpi=150, layout="constrained")
    axes = figure.subplots(1, 1 + len(panels), sharey=True, squeeze=False)[0]
    _panel(axes[0], panels[0][1], "macs", 1e-6, "million multiply-accumulates an image")
    for panel, ((threads, batch), found) in zip(axes[1:], panels, strict=True):
        label = f"milliseconds for {batch} image{'s' * (batch > 1)}, {threads} thread{'s' * (threads > 1)}"
        _panel(panel, found, "milliseconds", 1, label)
    axes[0].set_ylabel("test accuracy (%)")
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomically(path, buffer.getvalue())


def _panel(axes: Axes, rows: Sequence[Row], column: str, unit: float, label: str) -> None:
    criteria = {row["criterion"] for row in rows}
    lines: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        lines[row["granularity"], row["criterion"]].append(row)
    for (granularity, criterion), found in sorted(lines.items()):
        colour, marker = STYLES[granularity]
        points = [
            (unit * mean(row[column] for row in seeds), 100 * mean(row["accuracy"] for row in seeds))
            for seeds in _by_density(found)
        ]
        name = granularity.lower() if len(criteria) == 1 else f"{granularity.lower()}, {criterion}"
        style = "-" if criterion != "Random" or len(criteria) == 1 else "--"
        look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": style, "markersize": 5}
        axes.plot(*zip(*points, strict=True), label=name, **look)
    _logarithmic(axes)
    axes.set_xlabel(label)
    axes.grid(color="#e0e0e0", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _by_density(rows: Sequence[Row]) -> list[list[Row]]:
    """Runs that differ in the seed only, least dense first."""

    def density(row: Row) -> float:
        return round(row["density"], 4)

    return [list(same) for _, same in groupby(sorted(rows, key=density), density)]


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
