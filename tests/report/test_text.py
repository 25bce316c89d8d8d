from granprune.report.curves import curves
from granprune.report.headline import headline, trends
from granprune.report.latency import find_bench
from granprune.report.text import escape, grid, markdown
from tests.report.tables import write_bench


def document(table, target: float = 80.5) -> str:
    found = curves(table)
    entries = {"costs 10 points": headline(table, found, lambda dense: target)}
    return markdown(table, found, entries, {words: trends(here) for words, here in entries.items()})


def test_report_of_the_toy_study(toy) -> None:
    lines = document(toy).splitlines()
    assert "54 runs, 0.5 hours of training, 16,200 optimizer steps" in lines[2]
    assert "## Where random pruning costs 10 points" in lines
    (best,) = [
        line for line in lines if line.startswith("| Toy Net | Kernels | 80.50 |") and "(best)" in line
    ]
    assert "| Magnitude, Global (best) | 82.50 (82.50 to 82.50) | 2.00 (2.00 to 2.00) |" in best
    sentence = "Toy Net: from weights to kernels to channels the best criterion's advantage changes by -1.50"
    (trend,) = [line for line in lines if line.startswith(sentence)]
    assert trend.endswith("(2 seeds, paired; p = 0.0278, exact permutation test, one-sided).")
    assert "| density | 1/2 | 1/4 | 1/8 |" in lines


def test_one_seed_shows_values_without_intervals(toy) -> None:
    said = document(toy[toy["seed"] == 1], 80.0)
    assert "| Magnitude, Global (best) | 84.00 | 4.00 |" in said
    assert "one seed has a value for each, so no test" in said
    assert "Toy Net, unpruned: 90.00 %." in said
    assert " to 8" not in said


def test_missing_cells_are_dashes(toy) -> None:
    there = ~((toy["criterion"] == "Magnitude") & (toy["density"] == 0.25))
    (line, *_) = [
        line for line in document(toy[there]).splitlines() if line.startswith("| Magnitude, Global |")
    ]
    assert line.split(" | ")[2] == "-"


def test_target_out_of_reach(toy) -> None:
    assert "No random baseline crosses that accuracy." in document(toy, 1.0)


def test_images_and_dimensions_are_told(toy) -> None:
    said = document(toy.assign(data="from JPEG images", dimensions=2.5))
    assert "Toy: from JPEG images" in said
    assert "| Toy Net | Weights | Magnitude, Global | 1/8 | 2.50 (2.50 to 2.50) |" in said


def test_latencies_are_told(toy, tmp_path) -> None:
    found = curves(toy)
    bench = find_bench([str(write_bench(tmp_path, {}))])
    said = markdown(toy, found, {}, {}, bench).splitlines()
    start = said.index("## Latency")
    assert said[start + 2] == "Measured on A processor (AVX2), 2 cores."
    assert said[-1].startswith(
        "| Weights 0.5 Magnitude seed 1 | Toy | 1 | 1 | sparse engine | 3.000 (2.500 to"
    )


def test_names_are_escaped() -> None:
    assert grid(["a"], [["<b>|x*"]]).splitlines()[-1] == "| \\<b\\>\\|x\\* |"
    assert escape("two\nlines") == "two lines"
