import pandas as pd

from granprune.report.curves import curves
from granprune.report.gallery import gallery
from granprune.report.latency import find_bench
from tests.report.tables import write_bench

NAMES = ["accuracy-over-density", "accuracy-over-parameters", "accuracy-over-macs", "advantage", "matched"]


def test_figures_of_every_task(toy) -> None:
    table = pd.concat([toy, toy.assign(task="Other")], ignore_index=True)
    assert list(gallery(table, curves(table))) == [
        *(f"{name}-other-net" for name in NAMES),
        *(f"{name}-toy-net" for name in NAMES),
    ]


def test_without_random_pruning_there_is_nothing_to_compare_with(toy) -> None:
    clever = toy[toy["criterion"] != "Random"]
    assert list(gallery(clever, curves(clever))) == [f"{name}-toy-net" for name in NAMES[:3]]
    random = toy[toy["criterion"] == "Random"]
    assert list(gallery(random, curves(random))) == [f"{name}-toy-net" for name in NAMES[:3]]


def test_every_figure_says_what_became_of_its_images(toy, tmp_path) -> None:
    bench = find_bench([str(write_bench(tmp_path, {"data": "lossy JPEG pixels"}))])
    other = toy.assign(task="Other")
    table = pd.concat([toy.assign(data="lossy JPEG pixels"), other], ignore_index=True)
    drawn = gallery(table, curves(table), "a note", bench)
    assert len(drawn) == 11
    for name, figure in drawn.items():
        below = figure.get_supxlabel()
        assert ("lossy JPEG pixels" in below) == ("toy" in name), name
        assert below.endswith("a note")


def test_caption_tells_how_many_seeds_and_fits_the_figure(toy) -> None:
    one = toy[toy["seed"] == 1]
    assert gallery(toy, curves(toy))["matched-toy-net"].get_supxlabel().startswith("mean over 2 seeds, band")
    figure = gallery(one, curves(one))["matched-toy-net"]
    assert figure.get_supxlabel().startswith("one seed, so no intervals")
    box = figure._supxlabel.get_window_extent()
    assert box.x1 < figure.bbox.width


def test_accuracy_over_measured_latency(toy, tmp_path) -> None:
    kernels = {"granularity": "Kernels", "run": "b", "milliseconds": 2.0, "accuracy": 0.8}
    bench = find_bench(
        [str(write_bench(tmp_path, {}, kernels, {"accuracy": None, "task": None, "run": None}))]
    )
    figure = gallery(toy, curves(toy), bench=bench)["frontier-toy-net"]
    macs, latency = figure.axes
    assert macs.get_xlabel() == "million multiply-accumulates an image"
    drawn = {line.get_label(): line.get_xydata().tolist() for line in latency.get_lines()}
    assert drawn == {"kernels": [[2.0, 80.0]], "weights": [[3.0, 90.0]]}
    assert "on A processor (AVX2), 2 cores" in figure.get_supxlabel()
