import pandas as pd
import pytest

from granprune.report.continuum import HEAD, continuum, continuum_figure, line_of, rows
from granprune.report.curves import by_task, curves
from tests.report.tables import GAINS, sizes_study


def panels_of(table: pd.DataFrame):
    ((_, granularities),) = by_task(curves(table))
    return continuum(granularities)


def test_the_best_scopes_advantage_by_size() -> None:
    panels = panels_of(sizes_study())
    assert list(panels) == [0.25, 0.125]
    for density, share in (0.25, 1), (0.125, 0.5):
        assert list(panels[density]) == ["Magnitude"]
        line = line_of(panels[density]["Magnitude"])
        assert [size for size, _ in line] == [1, 3, 9, 72]
        assert [e.value for _, e in line] == pytest.approx([share * gain for gain in GAINS.values()])


def test_three_sizes_are_not_a_continuum() -> None:
    assert panels_of(sizes_study(sizes=(1, 3, 9))) == {}
    assert rows(curves(sizes_study(sizes=(1, 3, 9)))) == []


def test_the_table_says_what_the_figure_shows() -> None:
    table = rows(curves(sizes_study(densities=(0.25,))))
    assert len(HEAD) == len(table[0])
    assert table[3] == [
        "Toy Net",
        "1/4",
        "Magnitude",
        "Blocks 72",
        "72",
        "50.00 (50.00 to 50.00)",
        "1.00 (1.00 to 1.00)",
    ]


def test_a_panel_a_density_and_a_line_a_criterion() -> None:
    figure = continuum_figure("Toy Net", panels_of(sizes_study()), "a note")
    assert [axes.get_title() for axes in figure.axes] == ["density 1/4", "density 1/8"]
    line = figure.axes[0].lines[1]  # after the one at zero
    assert list(line.get_xdata()) == [1, 3, 9, 72]
    assert list(line.get_ydata()) == pytest.approx(list(GAINS.values()))
    assert figure.axes[0].get_xscale() == "log"
    assert [text.get_text() for text in figure.axes[0].texts] == ["Magnitude"]
