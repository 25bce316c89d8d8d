"""What all figures of the report are drawn with. Colours are Okabe and Ito's; lines carry their names."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from granprune.report.curves import Curve
from granprune.report.labels import spread
from granprune.report.statistics import Estimate

GREY, LIGHT = "#595959", "#e0e0e0"
COLOURS = {"Random": GREY, "Magnitude": "#0072b2", "SNIP": "#d55e00", "Statistical": "#009e73"}
FURTHER = ["#cc79a7", "#e69f00", "#56b4e9", "#000000"]  # for criteria of later days
NOTE_LETTERS = 19  # of the note below, an inch
LABEL_GAP = 0.062  # of the axes' height, between the baselines of two labels
Points = list[tuple[float, Estimate]]  # x -> estimate


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG and PDF; the same bytes for the same figure."""
    figure.savefig(path.with_suffix(".png"), metadata={"Software": None})
    figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})
    return [path.with_suffix(".png"), path.with_suffix(".pdf")]


def limits(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis with some room around the values."""
    room = 0.08 * (max(values) - min(values)) + 0.5 if values else 1.0
    return (min(values) - room, max(values) + room) if values else (0.0, 1.0)


def draw_line(axes: Axes, line: Points, colour: str, dashed: bool) -> None:
    """A line through the estimates, with a band over their intervals."""
    x, y = [x for x, _ in line], [y for _, y in line]
    style = "--" if dashed else "-"
    axes.plot(x, [e.value for e in y], color=colour, marker="o", markersize=4, linewidth=1.6, linestyle=style)
    sure = [(x, e.low, e.high) for x, e in line if e.low is not None]
    if sure:
        places, low, high = zip(*sure, strict=True)
        axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)


def end(line: Points) -> tuple[float, float]:
    """The sparse end, where lines part and their names have room."""
    return line[0][0], line[0][1].value


def label_lines(axes: Axes, ends: Sequence[tuple[str, str, float, float]]) -> None:
    """Write names at the left of the axes: of each line its text, colour and end (x, y)."""
    low, high = axes.get_ylim()
    heights = spread([(y - low) / (high - low) for *_, y in ends], LABEL_GAP)
    for (text, colour, x, y), height in zip(ends, heights, strict=True):
        axes.annotate(
            text, (x, y), xytext=(0.015, height), textcoords="axes fraction", va="center", fontsize=7,
            color=colour, arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.5},
        )  # fmt: skip


def log_axis(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis with a tick at each density."""
    axes.set_xscale("log", base=2)
    if values:
        room = max(2.0, (values[-1] / values[0])) ** 0.75  # for names at the left
        axes.set_xlim(values[0] / room, values[-1] * 1.15)
        axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: fraction(value)))


def cost_axis(axes: Axes) -> None:
    """Ticks for costs."""
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def tidy(axes: Axes) -> None:
    """Only the lines that help reading."""
    axes.grid(axis="y", color=LIGHT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def headings(figure: Figure, task: str, note: str) -> None:
    """The task above, the note below."""
    figure.suptitle(task, x=0.01, ha="left", fontsize=11)
    letters = int(NOTE_LETTERS * figure.get_figwidth())
    lines = [part for line in note.splitlines() for part in wrap(line, letters)]
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=7, color=GREY)


def colour(curve: Curve) -> str:
    """The criterion's."""
    criterion = curve.criterion.rsplit(".", 1)[-1]
    return COLOURS.get(criterion) or FURTHER[sum(map(ord, criterion)) % len(FURTHER)]


def fraction(density: float) -> str:
    """A density as a fraction if it is a power of two.

    >>> fraction(0.125), fraction(0.3)
    ('1/8', '0.3')
    """
    inverse = 1 / density
    whole = abs(inverse - round(inverse)) < 1e-9 and round(inverse) & (round(inverse) - 1) == 0
    return f"{density:.3g}" if not whole or density == 1 else f"1/{round(inverse)}"


def short(count: float) -> str:
    """A count in thousands or millions.

    >>> short(12_000), short(3_400_000), short(64)
    ('12k', '3.4M', '64')
    """
    for size, letter in (1e9, "G"), (1e6, "M"), (1e3, "k"):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:.3g}"


def number(estimate: Estimate | None, digits: int = 2) -> str:
    """An estimate with its interval, if there is one.

    >>> number(Estimate(85.0, 84.0, 86.0), 1), number(Estimate(85.0), 1), number(None)
    ('85.0 (84.0 to 86.0)', '85.0', '-')
    """
    if estimate is None:
        return "-"
    if estimate.low is None:
        return f"{estimate.value:.{digits}f}"
    return f"{estimate.value:.{digits}f} ({estimate.low:.{digits}f} to {estimate.high:.{digits}f})"
