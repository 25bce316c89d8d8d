"""The report's figures, for paper and screen. Colours are Okabe and Ito's; lines carry their names."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from granprune.report.curves import AXES, Curve, advantage, baseline_of
from granprune.report.drawing import (
    FURTHER,
    GREY,
    Points,
    colour,
    cost_axis,
    draw_line,
    end,
    headings,
    label_lines,
    limits,
    log_axis,
    tidy,
)

GRANULARITY_COLOURS = {"Weights": "#0072b2", "Kernels": "#e69f00", "Channels": "#d55e00", "Nodes": "#d55e00"}
X_LABELS = {
    "density": "density (the paper's preservation rate)",
    "parameters": "parameters kept",
    "MACs": "effective multiply-accumulates",
}
PANEL_WIDTH, HEIGHT = 4.2, 3.6  # inches

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
            cost_axis(axes)
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
        draw_line(axes, line, GRANULARITY_COLOURS.get(name, FURTHER[0]), dashed=False)
    low, high = limits([x for _, line in lines.values() for x, _ in line])
    axes.set_xlim(low - 0.45 * (high - low), high)
    axes.set_ylim(limits([value for _, line in lines.values() for x, y in line for value in (x, y.value)]))
    axes.axline((low, low), slope=1, color=GREY, linewidth=0.8, zorder=1)
    label_lines(
        axes,
        [
            (f"{name}: {method}", GRANULARITY_COLOURS.get(name, FURTHER[0]), *end(line))
            for name, (method, line) in lines.items()
        ],
    )
    tidy(axes)
    axes.set_xticks([tick for tick in axes.get_xticks() if low <= tick <= high])
    axes.set_xlabel("accuracy of random pruning (%)", fontsize=9)
    axes.set_ylabel("accuracy of the best criterion, same density (%)", fontsize=9)
    headings(figure, task, note)
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
    ends = limits([estimate.value for here in lines.values() for _, line in here for _, estimate in line])
    for axes, (name, here) in zip(panels, lines.items(), strict=True):
        _panel(axes, name, here)
        axes.set_ylim(ends)  # by the means: a band of two seeds may be wider than the axis
        label_lines(axes, [(curve.method, colour(curve), *end(line)) for curve, line in here])
    headings(figure, task, note)
    return figure


def _panel(axes: Axes, name: str, lines: Sequence[tuple[Curve, Points]]) -> None:
    for curve, line in lines:
        draw_line(axes, line, colour(curve), dashed=curve.inverted)
    axes.set_title(name.lower(), fontsize=10)
    log_axis(axes, sorted({x for _, line in lines for x, _ in line}))
    tidy(axes)


assert set(X_LABELS) == set(AXES)
