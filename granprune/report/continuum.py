"""What criteria gain over random pruning, by the size of a component."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from granprune.report.curves import Curve, advantage, baseline_of, by_task
from granprune.report.drawing import (
    GREY,
    Points,
    colour,
    draw_line,
    fraction,
    headings,
    label_lines,
    limits,
    number,
    short,
    tidy,
)
from granprune.report.figures import drawn

SIZES = 4  # fewer are read more easily in panels side by side
WIDTH, HEIGHT = 4.6, 3.8  # of a panel, inches
HEAD = ["task", "density", "criterion", "granularity", "weights of a component", "random (%)", "advantage"]


@dataclass(frozen=True)
class Gain:
    """What the best scope of a criterion gains at one size and density.

    Args:
        size: Weights of a component, averaged over the network's components.
        curve: The criterion's runs.
        baseline: The runs of random pruning.
        density: Of both.
    """

    size: float
    curve: Curve
    baseline: Curve
    density: float


Panels = dict[float, dict[str, list[Gain]]]  # density -> criterion -> gains, from fine to coarse


def continuum(granularities: Mapping[str, Sequence[Curve]]) -> Panels:
    """Sort what a task's criteria gain by the size of a component.

    Args:
        granularities: Curves of each granularity; of a criterion with several scopes the best counts.

    Returns:
        Densities with criteria that were tried at `SIZES` sizes or more.
    """
    panels: Panels = {}
    for curves in granularities.values():
        for curve in drawn(curves):
            baseline = baseline_of(curve, list(curves))
            if baseline is None or curve.baseline:
                continue
            size = float(curve.runs["component_size"].mean())
            for density, _ in advantage(curve, baseline):
                gain = Gain(size, curve, baseline, density)
                panels.setdefault(density, {}).setdefault(curve.criterion, []).append(gain)
    for criteria in panels.values():
        for name, gains in list(criteria.items()):
            gains.sort(key=lambda gain: gain.size)
            if len({gain.size for gain in gains}) < SIZES:
                del criteria[name]
    return {density: panels[density] for density in sorted(panels, reverse=True) if panels[density]}


def line_of(gains: Sequence[Gain]) -> Points:
    """Size -> advantage in points."""
    return [(gain.size, dict(advantage(gain.curve, gain.baseline))[gain.density]) for gain in gains]


def continuum_figure(task: str, panels: Panels, note: str) -> Figure:
    """The advantage over the size of a component: a panel a density, a line a criterion."""
    figure = Figure(figsize=(WIDTH * len(panels), HEIGHT), dpi=150, layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    lines = {d: {name: line_of(gains) for name, gains in here.items()} for d, here in panels.items()}
    every = [estimate.value for here in lines.values() for line in here.values() for _, estimate in line]
    for panel, (density, here) in zip(axes, panels.items(), strict=True):
        panel.axhline(0, color=GREY, linewidth=0.8, zorder=1)
        for name, gains in here.items():
            draw_line(panel, lines[density][name], colour(gains[0].curve), gains[0].curve.inverted)
            for gain in gains:  # each seed, since few make wide bands
                single = (gain.curve.seeds - gain.baseline.seeds)[density].dropna()
                panel.plot([gain.size] * len(single), single, "o", mfc="none", ms=3, color=colour(gain.curve))
        panel.set_ylim(limits([0, *every]))
        _sizes(panel, sorted({gain.size for gains in here.values() for gain in gains}))
        label_lines(
            panel,
            [
                (name, colour(gains[0].curve), gains[0].size, lines[density][name][0][1].value)
                for name, gains in here.items()
            ],
        )
        panel.set_title(f"density {fraction(density)}", fontsize=10)
        panel.set_xlabel("weights of a component (mean over the network)", fontsize=9)
        tidy(panel)
    axes[0].set_ylabel("accuracy above random (points)", fontsize=9)
    headings(figure, task, note)
    return figure


def rows(found: Sequence[Curve]) -> list[list[str]]:
    """The figure as a table with the columns `HEAD`, for every task that has one."""
    return [
        [
            task,
            fraction(density),
            name,
            gain.curve.granularity,
            f"{gain.size:.3g}",
            number(dict(gain.baseline.accuracy())[density]),
            number(estimate),
        ]
        for task, granularities in by_task(list(found))
        for density, criteria in continuum(granularities).items()
        for name, gains in criteria.items()
        for gain, (_, estimate) in zip(gains, line_of(gains), strict=True)
    ]


def _sizes(axes: Axes, sizes: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(sizes[0] / (sizes[-1] / sizes[0]) ** 0.3, sizes[-1] * 1.15)  # names are at the left
    axes.xaxis.set_major_locator(FixedLocator(list(sizes)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
