"""The report's figures, for paper and screen. Colours are Okabe and Ito's; lines carry their names."""

from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import wrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from granprune.report.curves import AXES, Curve, advantage, baseline_of
from granprune.report.labels import spread
from granprune.report.statistics import Estimate

GREY, LIGHT = "#595959", "#e0e0e0"
COLOURS = {"Random": GREY, "Magnitude": "#0072b2", "SNIP": "#d55e00", "Statistical": "#009e73"}
FURTHER = ["#cc79a7", "#e69f00", "#56b4e9", "#000000"]  # for criteria of later days
GRANULARITY_COLOURS = {"Weights": "#0072b2", "Kernels": "#e69f00", "Channels": "#d55e00", "Nodes": "#d55e00"}
X_LABELS = {
    "density": "density (the paper's preservation rate)",
    "parameters": "parameters kept",
    "MACs": "effective multiply-accumulates",
}
PANEL_WIDTH, HEIGHT = 4.2, 3.6  # inches
NOTE_LETTERS = 19  # of the note below, an inch
LABEL_GAP = 0.062  # of the axes' height, between the baselines of two labels

Points = list[tuple[float, Estimate]]  # x -> estimate
Granularities = dict[str, list[Curve]]


def accuracy_figure(
    task: str, granularities: Granularities, axis: str, dense: float | None, note: str
) -> Figure:
    """Accuracy over density or cost: a panel a granularity, criteria against their random baseline.

    Args:
        task: Heading.
        granularities: Curves of each granularity; of a criterion with several scopes the best is drawn.
        axis: A key of `AXES`.
        dense: Accuracy of the unpruned network in percent, if known.
        note: Printed below.
    """

    def draw(curve: Curve) -> Points:
        line = zip(curve.place(axis), curve.accuracy(), strict=True)
        return [(x, y) for x, (_, y) in line if x > 0]  # a dead network has no place on a logarithmic axis

    figure = _panels(task, granularities, draw, note)
    for axes in figure.axes:
        axes.set_xlabel(X_LABELS[axis])
        if dense is not None:
            axes.axhline(dense, color=GREY, linewidth=0.8, linestyle=":", zorder=1)
        if axis != "density":
            _cost_axis(axes)
    figure.axes[0].set_ylabel("test accuracy (%)")
    return figure


def advantage_figure(task: str, granularities: Granularities, note: str) -> Figure:
    """What criteria gain over random pruning of the same density, in points: a panel a granularity."""

    def draw(curve: Curve) -> Points:
        baseline = baseline_of(curve, granularities[curve.granularity])
        return advantage(curve, baseline) if baseline and not curve.baseline else []

    figure = _panels(task, granularities, draw, note)
    for axes in figure.axes:
        axes.axhline(0, color=GREY, linewidth=0.8, zorder=1)
        axes.set_xlabel(X_LABELS["density"])
    figure.axes[0].set_ylabel("accuracy above random (points)")
    return figure


def matched_figure(task: str, granularities: Granularities, note: str) -> Figure:
    """The best criterion's accuracy over that of random pruning at the same density, by granularity."""
    lines = {name: matched for name, curves in granularities.items() if (matched := _matched(curves))}
    figure = Figure(figsize=(5.4, 4.4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for name, (_, line) in lines.items():
        _line(axes, line, GRANULARITY_COLOURS.get(name, FURTHER[0]), dashed=False)
    low, high = _limits([x for _, line in lines.values() for x, _ in line])
    axes.set_xlim(low - 0.45 * (high - low), high)
    axes.set_ylim(_limits([value for _, line in lines.values() for x, y in line for value in (x, y.value)]))
    axes.axline((low, low), slope=1, color=GREY, linewidth=0.8, zorder=1)
    _labels(
        axes,
        [
            (f"{name}: {method}", GRANULARITY_COLOURS.get(name, FURTHER[0]), *_end(line))
            for name, (method, line) in lines.items()
        ],
    )
    _tidy(axes)
    axes.set_xticks([tick for tick in axes.get_xticks() if low <= tick <= high])
    axes.set_xlabel("accuracy of random pruning (%)", fontsize=9)
    axes.set_ylabel("accuracy of the best criterion, same density (%)", fontsize=9)
    _headings(figure, task, note)
    return figure


def _matched(curves: Sequence[Curve]) -> tuple[str, Points] | None:
    """The best method, and its accuracy over that of the baseline, a point a density."""
    rivals = [curve for curve in curves if not curve.baseline and not curve.inverted]
    baseline = baseline_of(curves[0], list(curves))
    if not rivals or baseline is None:
        return None
    chosen, random = max(rivals, key=mean_accuracy), dict(baseline.accuracy())
    line = [(random[density].value, y) for density, y in chosen.accuracy() if density in random]
    return (chosen.method, sorted(line, key=lambda point: point[0])) if line else None


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG and PDF; the same bytes for the same figure."""
    figure.savefig(path.with_suffix(".png"), metadata={"Software": None})
    figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})
    return [path.with_suffix(".png"), path.with_suffix(".pdf")]


def drawn(curves: Sequence[Curve]) -> list[Curve]:
    """Of each criterion the best scope: more lines could not be told apart on paper."""
    criteria = dict.fromkeys((curve.criterion, curve.baseline) for curve in curves)
    return [
        max((c for c in curves if (c.criterion, c.baseline) == key), key=mean_accuracy) for key in criteria
    ]


def mean_accuracy(curve: Curve) -> float:
    """Over densities and seeds."""
    return float(curve.seeds.mean().mean())


def _panels(task: str, granularities: Granularities, points: Callable[[Curve], Points], note: str) -> Figure:
    figure = Figure(figsize=(PANEL_WIDTH * len(granularities), HEIGHT), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(granularities), sharey=True, squeeze=False)[0]
    lines = {
        name: [(curve, line) for curve in drawn(curves) if (line := points(curve))]
        for name, curves in granularities.items()
    }
    limits = _limits([estimate.value for here in lines.values() for _, line in here for _, estimate in line])
    for axes, (name, here) in zip(panels, lines.items(), strict=True):
        _panel(axes, name, here)
        axes.set_ylim(limits)  # by the means: a band of two seeds may be wider than the axis
        _labels(axes, [(curve.method, _colour(curve), *_end(line)) for curve, line in here])
    _headings(figure, task, note)
    return figure


def _panel(axes: Axes, name: str, lines: Sequence[tuple[Curve, Points]]) -> None:
    for curve, line in lines:
        _line(axes, line, _colour(curve), dashed=curve.inverted)
    axes.set_title(name.lower(), fontsize=10)
    _log_axis(axes, sorted({x for _, line in lines for x, _ in line}))
    _tidy(axes)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    room = 0.08 * (max(values) - min(values)) + 0.5 if values else 1.0
    return (min(values) - room, max(values) + room) if values else (0.0, 1.0)


def _line(axes: Axes, line: Points, colour: str, dashed: bool) -> None:
    x, y = [x for x, _ in line], [y for _, y in line]
    style = "--" if dashed else "-"
    axes.plot(x, [e.value for e in y], color=colour, marker="o", markersize=4, linewidth=1.6, linestyle=style)
    sure = [(x, e.low, e.high) for x, e in line if e.low is not None]
    if sure:
        places, low, high = zip(*sure, strict=True)
        axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)


def _end(line: Points) -> tuple[float, float]:
    """The sparse end, where lines part and their names have room."""
    return line[0][0], line[0][1].value


def _labels(axes: Axes, ends: Sequence[tuple[str, str, float, float]]) -> None:
    low, high = axes.get_ylim()
    heights = spread([(y - low) / (high - low) for *_, y in ends], LABEL_GAP)
    for (text, colour, x, y), height in zip(ends, heights, strict=True):
        axes.annotate(
            text, (x, y), xytext=(0.015, height), textcoords="axes fraction", va="center", fontsize=7,
            color=colour, arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.5},
        )  # fmt: skip


def _log_axis(axes: Axes, values: Sequence[float]) -> None:
    axes.set_xscale("log", base=2)
    if values:
        room = max(2.0, (values[-1] / values[0])) ** 0.75  # for names at the left
        axes.set_xlim(values[0] / room, values[-1] * 1.15)
        axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: fraction(value)))


def _cost_axis(axes: Axes) -> None:
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def _tidy(axes: Axes) -> None:
    axes.grid(axis="y", color=LIGHT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _headings(figure: Figure, task: str, note: str) -> None:
    figure.suptitle(task, x=0.01, ha="left", fontsize=11)
    letters = int(NOTE_LETTERS * figure.get_figwidth())
    lines = [part for line in note.splitlines() for part in wrap(line, letters)]
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=7, color=GREY)


def _colour(curve: Curve) -> str:
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


assert set(X_LABELS) == set(AXES)
