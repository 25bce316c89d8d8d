"""Accuracy over measured latency and over multiply-accumulates, one line a granularity."""

import io
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
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
# From fine to coarse: Okabe and Ito's colours, which colour-blind readers can tell apart, and a marker.
STYLES = {
    "Weights": ("#0072b2", "o"),
    "Kernels": ("#d55e00", "s"),
    "Channels": ("#009e73", "^"),
    "Nodes": ("#009e73", "^"),
    "Blocks": ("#cc79a7", "D"),
}


@dataclass(frozen=True)
class Panel:
    """Accuracy over one cost.

    Args:
        label: The cost, with its unit.
        lines: (granularity, criterion) -> (cost, test accuracy in percent) of each density, sparse first.
    """

    label: str
    lines: dict[tuple[str, str], list[tuple[float, float]]]


@dataclass(frozen=True)
class Frontier:
    """The trained networks of one task and architecture.

    Args:
        task: What they were trained on.
        network: The architecture's name.
        panels: Over multiply-accumulates, then over the latency of each batch size and number of threads.
        note: What must be known about the images, if anything.
    """

    task: str
    network: str
    panels: list[Panel]
    note: str | None


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw a figure for each task and architecture whose networks were trained.

    Args:
        rows: What was measured.
        folder: Where `frontier-*.png` go.

    Returns:
        The files; none for untrained networks.
    """
    paths = []
    for name, figure in figures(frontiers(rows)).items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
        paths.append(folder / f"{name}.png")
        write_atomically(paths[-1], buffer.getvalue())
    return paths


def frontiers(rows: Sequence[Row]) -> list[Frontier]:
    """Arrange measurements, each network in its fastest deployed float32 form."""
    trained = defaultdict(list)
    for row in rows:
        if row["accuracy"] is not None:
            trained[row["task"], row["architecture"]].append(row)
    return [
        Frontier(task, architecture.split("(")[0], _panels(found), found[0].get("data"))
        for (task, architecture), found in trained.items()
    ]


def figures(found: Sequence[Frontier], note: str | None = None) -> dict[str, Figure]:
    """Draw frontiers.

    Args:
        found: A figure each.
        note: Printed below, after what a frontier notes itself.

    Returns:
        File name without suffix, such as `frontier-cifar10-resnet20` -> figure.
    """
    drawn: dict[str, Figure] = {}
    for frontier in found:
        words = re.sub(r"\W+", "-", f"frontier-{frontier.task}-{frontier.network}").lower()
        again = sum(re.fullmatch(rf"{words}(-\d+)?", name) is not None for name in drawn)
        below = "\n".join(filter(None, [frontier.note, note]))
        drawn[f"{words}-{again + 1}" if again else words] = _figure(frontier, below)
    return drawn


def _panels(rows: Sequence[Row]) -> list[Panel]:
    def setting(row: Row) -> tuple[int, int]:
        return row["threads"], row["batch"]

    settings = [(key, fastest(list(same))) for key, same in groupby(sorted(rows, key=setting), setting)]
    macs = Panel("million multiply-accumulates an image", _lines(settings[0][1], "macs", 1e-6))
    return [macs, *(Panel(_words(*key), _lines(found, "milliseconds")) for key, found in settings)]


def _words(threads: int, batch: int) -> str:
    return f"milliseconds for {batch} image{'s' * (batch > 1)}, {threads} thread{'s' * (threads > 1)}"


def _lines(
    rows: Sequence[Row], column: str, unit: float = 1
) -> dict[tuple[str, str], list[tuple[float, float]]]:
    lines: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (list(STYLES).index(row["granularity"]), row["criterion"])):
        lines[row["granularity"], row["criterion"]].append(row)
    return {
        key: [
            (unit * mean(row[column] for row in seeds), 100 * mean(row["accuracy"] for row in seeds))
            for seeds in _by_density(found)
        ]
        for key, found in lines.items()
    }


def _by_density(rows: Sequence[Row]) -> list[list[Row]]:
    """Runs that differ in the seed only, least dense first."""

    def density(row: Row) -> float:
        return round(row["density"], 4)

    return [list(same) for _, same in groupby(sorted(rows, key=density), density)]


def _figure(frontier: Frontier, below: str) -> Figure:
    panels = frontier.panels
    figure = Figure(figsize=(1.5 + 4 * len(panels), 3.8), dpi=150, layout="constrained")
    places = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(places, panels, strict=True):
        _draw_panel(axes, panel)
    places[0].set_ylabel("test accuracy (%)")
    figure.suptitle(f"{frontier.network} on {frontier.task}", x=0.01, ha="left", fontsize=10)
    figure.supxlabel(below, x=0.01, ha="left", fontsize=7, color="#595959")
    handles, labels = places[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _draw_panel(axes: Axes, panel: Panel) -> None:
    several = len({criterion for _, criterion in panel.lines}) > 1
    for (granularity, criterion), points in panel.lines.items():
        colour, marker = STYLES[granularity]
        name = f"{granularity.lower()}, {criterion}" if several else granularity.lower()
        style = "--" if criterion == "Random" and several else "-"
        look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": style, "markersize": 5}
        axes.plot(*zip(*points, strict=True), label=name, **look)
    _logarithmic(axes)
    axes.set_xlabel(panel.label)
    axes.grid(color="#e0e0e0", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
