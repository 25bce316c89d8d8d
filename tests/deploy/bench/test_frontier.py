import pytest

from granprune.deploy.bench import frontier


def row(granularity, density, accuracy, milliseconds, batch=1, criterion="Magnitude", seed=1):
    return {
        "task": "CIFAR10",
        "data": "lossy JPEG pixels",
        "architecture": "ResNet20(width=16)",
        "network": f"{granularity} {density}",
        "run": f"{granularity}-{criterion}-{density}-{seed}",
        "variant": "pruned",
        "engine": "sparse engine",
        "granularity": granularity,
        "criterion": criterion,
        "density": density,
        "accuracy": accuracy,
        "macs": 40_000_000 * density,
        "milliseconds": milliseconds,
        "batch": batch,
        "threads": 1,
    }


ROWS = [
    row(kind, density, accuracy - penalty, 2 * density * batch, batch)
    for kind, penalty in (("Weights", 0), ("Kernels", 0.02), ("Channels", 0.05))
    for density, accuracy in ((0.5, 0.91), (0.25, 0.9), (0.05, 0.86))
    for batch in (1, 128)
]


def lines(rows, place=0):
    """Name -> points of the lines in one panel of the only figure."""
    (figure,) = frontier.figures(frontier.frontiers(rows)).values()
    drawn = figure.axes[place].get_lines()
    return {line.get_label(): [*zip(*line.get_data(), strict=True)] for line in drawn}


def test_one_line_a_granularity_from_sparse_to_dense():
    drawn = lines(ROWS)
    assert set(drawn) == {"weights", "kernels", "channels"}
    assert drawn["weights"] == [(2, 86), (10, 90), (20, 91)]


def test_a_panel_a_cost_and_a_word_about_the_images():
    (figure,) = frontier.figures(frontier.frontiers(ROWS), "a machine").values()
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "million multiply-accumulates an image",
        "milliseconds for 1 image, 1 thread",
        "milliseconds for 128 images, 1 thread",
    ]
    assert figure.get_suptitle() == "ResNet20 on CIFAR10"
    assert figure.get_supxlabel() == "lossy JPEG pixels\na machine"


def test_seeds_are_averaged_and_criteria_are_not():
    rows = [
        row("Weights", 0.5, 0.8, 1),
        row("Weights", 0.5, 0.9, 3, seed=2),
        row("Weights", 0.5, 0.5, 1, criterion="Random"),
    ]
    drawn = lines(rows, 1)
    assert drawn["weights, Magnitude"] == [(2, pytest.approx(85))]
    assert drawn["weights, Random"] == [(1, 50)]


def test_a_figure_a_network_for_trained_ones_only(tmp_path):
    untrained = {**ROWS[0], "accuracy": None, "task": None}
    other = {**ROWS[0], "architecture": "ResNet20(width=4)"}
    paths = frontier.draw([*ROWS, untrained, other], tmp_path)
    assert [path.name for path in paths] == [
        "frontier-cifar10-resnet20.png",
        "frontier-cifar10-resnet20-2.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert frontier.draw([untrained], tmp_path) == []
