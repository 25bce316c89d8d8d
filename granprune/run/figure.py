"""A run's figure: test accuracy over density."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from granprune.run.checkpoint_io import write_atomically

BLUE = "#0072b2"  # of Okabe and Ito's palette, which colour-blind readers can tell apart
GREY = "#595959"
MAX_LABELS = 8  # more would touch each other


def accuracy_over_density(
    records: Sequence[Mapping[str, Any]], path: Path, title: str, note: str | None = None
) -> None:
    """Draw test accuracy against density, a point a round, and write it as a PNG.

    Args:
        records: Round records, each with `round`, `density` and `test_accuracy` (0 to 1). Rounds with
            nothing left have no place on a logarithmic axis; without any other, nothing is drawn.
        path: The file, written atomically.
        title: Heading, such as the run's name.
        note: Printed below, such as what became of the images.
    """
    records = [record for record in records if record["density"] > 0]
    if not records:
        return
    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    densities = [record["density"] for record in records]
    accuracies = [100 * record["test_accuracy"] for record in records]
    axes.plot(densities, accuracies, color=BLUE, marker="o", markersize=6, linewidth=1.8, clip_on=False)
    _set_density_axis(axes, densities)
    _set_accuracy_axis(axes, accuracies)
    if len(records) <= MAX_LABELS:
        _label_points(axes, records)
    axes.set_title(title, loc="left", fontsize=9, color=GREY, pad=20)  # labels near 100 % reach up there
    if note:
        figure.supxlabel(note, x=0.01, ha="left", fontsize=7, color=GREY)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # the same bytes from any version
    write_atomically(path, buffer.getvalue())


def _set_density_axis(axes: Axes, densities: Sequence[float]) -> None:
    axes.set_xscale("log", base=2)
    margin = (max(densities) / min(densities)) ** 0.12 if len(set(densities)) > 1 else 2
    axes.set_xlim(min(densities) / margin, max(densities) * margin)
    few = len(densities) <= MAX_LABELS
    axes.xaxis.set_major_locator(FixedLocator(sorted(set(densities))) if few else LogLocator(base=2))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda density, _: f"{density:.3g}"))
    axes.set_xlabel("density (the paper's preservation rate)")


def _set_accuracy_axis(axes: Axes, accuracies: Sequence[float]) -> None:
    margin = max(2.0, 0.15 * (max(accuracies) - min(accuracies)))
    axes.set_ylim(max(0.0, min(accuracies) - margin), min(100.0, max(accuracies) + margin))
    axes.set_ylabel("test accuracy (%)")
    axes.grid(axis="y", color="#e0e0e0", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _label_points(axes: Axes, records: Sequence[Mapping[str, Any]]) -> None:
    for record in records:
        axes.annotate(
            f"round {record['round']}\n{100 * record['test_accuracy']:.1f} %",
            (record["density"], 100 * record["test_accuracy"]),
            xytext=(-3, 5),  # above and to the left, where a curve that rises with density is not
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color=GREY,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )
