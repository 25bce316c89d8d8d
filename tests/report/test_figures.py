from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from granprune.report import figures
from granprune.report.curves import AXES, by_task, curves
from granprune.report.drawing import save


@pytest.fixture(scope="module")
def granularities(toy) -> dict:
    return next(by_task(curves(toy)))[1]


def texts(axes) -> set[str]:
    return {text.get_text() for text in axes.texts}


def lines(axes) -> dict[str, np.ndarray]:
    """Colour and dash -> points of the curves; reference lines have no markers."""
    drawn = [line for line in axes.lines if line.get_marker() == "o"]
    return {line.get_color() + line.get_linestyle(): np.column_stack(line.get_data()) for line in drawn}


def test_a_panel_a_granularity_with_curves_and_their_names(granularities) -> None:
    figure = figures.accuracy_figure("Toy Net", granularities, "density", 90.5, "note")
    assert [axes.get_title() for axes in figure.axes] == ["weights", "kernels", "channels"]
    assert texts(figure.axes[0]) == {"Random, Layerwise", "Magnitude, Global", "inverted Magnitude, Global"}
    drawn = lines(figure.axes[0])
    assert drawn["#0072b2-"] == pytest.approx(np.array([(0.125, 64.5), (0.25, 79.5), (0.5, 89.5)]))
    assert drawn["#0072b2--"] == pytest.approx(np.array([(0.125, 56.5), (0.25, 71.5), (0.5, 81.5)]))
    assert drawn["#595959-"] == pytest.approx(np.array([(0.125, 60.5), (0.25, 75.5), (0.5, 85.5)]))
    assert len(figure.axes[0].collections) == 3  # bands
    assert "note" in figure.get_supxlabel()


@pytest.mark.parametrize("axis", AXES)
def test_every_axis_is_labelled_and_logarithmic(granularities, axis: str) -> None:
    figure = figures.accuracy_figure("Toy Net", granularities, axis, None, "")
    assert figure.axes[0].get_xlabel() == figures.X_LABELS[axis]
    assert figure.axes[0].get_xscale() == "log"
    factor = {"density": 1, "parameters": 1000, "MACs": 9000}[axis]
    assert [x for x, _ in lines(figure.axes[0])["#0072b2-"]] == pytest.approx(
        [d * factor for d in (0.125, 0.25, 0.5)]
    )


def test_one_seed_has_no_band(toy) -> None:
    ((_, single),) = by_task(curves(toy[toy["seed"] == 1]))
    figure = figures.accuracy_figure("Toy Net", single, "density", None, "")
    assert len(lines(figure.axes[0])) == 3 and len(figure.axes[0].collections) == 0


def test_advantage_over_random(granularities) -> None:
    figure = figures.advantage_figure("Toy Net", granularities, "")
    heights = [[y for _, y in lines(axes)["#0072b2-"]] for axes in figure.axes]
    assert heights == [pytest.approx([gain] * 3) for gain in (4.0, 2.0, 1.0)]
    assert "#595959-" not in lines(figure.axes[0])


def test_matched_figure_compares_granularities_at_equal_difficulty(granularities) -> None:
    figure = figures.matched_figure("Toy Net", granularities, "")
    (axes,) = figure.axes
    assert texts(axes) == {f"{name}: Magnitude, Global" for name in ("Weights", "Kernels", "Channels")}
    assert lines(axes)["#e69f00-"] == pytest.approx(np.array([(60.5, 62.5), (75.5, 77.5), (85.5, 87.5)]))


def test_of_several_scopes_the_best_is_drawn(make_table) -> None:
    table = make_table(
        {"scope": "Global", "test_accuracy": 0.8}, {"scope": "Layerwise", "test_accuracy": 0.9}
    )
    assert [curve.method for curve in figures.drawn(curves(table))] == ["Magnitude, Layerwise"]


def test_dead_networks_have_no_place_over_costs(make_table) -> None:
    table = make_table({"density": 0.5}, {"density": 0.25, "effective_macs": 0})
    ((_, granularities),) = by_task(curves(table))
    figure = figures.accuracy_figure("Toy Net", granularities, "MACs", None, "")
    assert lines(figure.axes[0])["#0072b2-"].tolist() == [[900.0, 90.0]]


def test_files_are_whole_and_repeatable(granularities, tmp_path: Path) -> None:
    first, second = (
        save(figures.advantage_figure("Toy Net", granularities, ""), tmp_path / name) for name in "ab"
    )
    assert [path.suffix for path in first] == [".png", ".pdf"]
    assert imread(first[0]).shape[2] == 4
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
