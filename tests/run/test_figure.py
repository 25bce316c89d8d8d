import matplotlib.image
import numpy as np
import pytest
from matplotlib.axes import Axes

from granprune.run.figure import BLUE, accuracy_over_density


def records(*points):
    return [{"round": i, "density": d, "test_accuracy": a} for i, (d, a) in enumerate(points)]


@pytest.fixture
def drawn(monkeypatch):
    """The axes of each figure that is drawn."""
    axes = []
    plot = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda self, *args, **kwargs: (axes.append(self), plot(self, *args, **kwargs))[1]
    )
    return axes


@pytest.mark.parametrize("rounds", [1, 6, 20])
def test_the_file_is_a_picture_with_a_blue_curve(tmp_path, rounds):
    path = tmp_path / "figure.png"
    accuracy_over_density(records(*((0.5**i, 0.9 - 0.01 * i) for i in range(rounds))), path, "a run")
    image = matplotlib.image.imread(path)
    blue = np.array([int(BLUE[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    assert image.shape[:2] == (600, 960)
    assert (np.abs(image[..., :3] - blue).max(-1) < 0.01).sum() > 50


def test_points_are_densities_and_percentages(tmp_path, drawn):
    accuracy_over_density(records((1.0, 0.9), (0.5, 0.85), (0.25, 0.1)), tmp_path / "figure.png", "a run")
    (line,) = drawn[0].get_lines()
    np.testing.assert_allclose(line.get_xydata(), [[1, 90], [0.5, 85], [0.25, 10]])


def test_a_note_stands_below(tmp_path, drawn):
    accuracy_over_density(records((1.0, 0.9)), tmp_path / "figure.png", "a run", "lossy JPEG pixels")
    assert drawn[0].figure.get_supxlabel() == "lossy JPEG pixels"


def test_the_axes_say_what_they_show(tmp_path, drawn):
    accuracy_over_density(records((1.0, 0.9), (0.25, 0.1)), tmp_path / "figure.png", "a run")
    (axes,) = drawn
    assert axes.get_xlabel() == "density (the paper's preservation rate)"
    assert axes.get_ylabel() == "test accuracy (%)"
    assert axes.get_title(loc="left") == "a run"
    assert (axes.get_xscale(), axes.xaxis.get_transform().base) == ("log", 2)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.25", "1"]
    assert [text.get_text() for text in axes.texts] == ["round 0\n90.0 %", "round 1\n10.0 %"]


def test_many_rounds_get_no_labels(tmp_path, drawn):
    accuracy_over_density(records(*((0.9**i, 0.5) for i in range(9))), tmp_path / "figure.png", "a run")
    assert not drawn[0].texts


def test_an_empty_network_has_no_place(tmp_path, drawn):
    accuracy_over_density(records((1.0, 0.9), (0.0, 0.1)), tmp_path / "figure.png", "a run")
    assert len(drawn[0].get_lines()[0].get_xydata()) == 1
    accuracy_over_density(records((0.0, 0.1)), tmp_path / "nothing.png", "a run")
    assert not (tmp_path / "nothing.png").exists()


def test_a_new_figure_replaces_the_old_one(tmp_path):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")
    accuracy_over_density(records((1.0, 0.9)), path, "a run")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.iterdir()] == ["figure.png"]
