from pathlib import Path

import pandas as pd
import pytest

from granprune.report.curves import curves
from granprune.report.headline import headline, trends
from granprune.report.latency import find_bench
from granprune.report.page import content, page
from tests.report.tables import sizes_study, write_bench

MARKUP = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 1'><b>bold"
LINES = "data.filter(trace => trace.mode == 'lines+markers')"
TRACES = f"return [...document.querySelectorAll('.plot')].map(plot => plot.{LINES}.length)"
COSTS = "return [...document.querySelectorAll('.cost')]"
FIRST = f"return document.querySelector('.plot').{LINES}[0]"
PLACE = """
const plot = document.querySelector('.plot'), box = plot.getBoundingClientRect();
const {xaxis, yaxis} = plot._fullLayout;
const runs = plot.data.find(trace => trace.customdata);
return [box.x + xaxis._offset + xaxis.d2p(runs.x[0]), box.y + yaxis._offset + yaxis.d2p(runs.y[0])];
"""


def select(browser, control: str, value: str) -> None:
    browser.run(
        f"const control = document.getElementById('{control}'); control.value = '{value}';"
        "control.dispatchEvent(new Event('change'));"
    )


def parts(table) -> tuple:
    found = curves(table)
    entries = {"costs 10 points": headline(table, found, lambda dense: 80.5)}
    return table, found, entries, {words: trends(here) for words, here in entries.items()}


@pytest.fixture(scope="module")
def path(toy, tmp_path_factory) -> Path:
    other = toy.assign(task=MARKUP, name=MARKUP + toy["name"], command="granprune fit --x=" + MARKUP)
    table = pd.concat([toy.assign(dimensions=2.5, data="from JPEG"), other], ignore_index=True)
    folder = tmp_path_factory.mktemp("page")
    kernels = {"run": "b", "granularity": "Kernels", "accuracy": 0.8, "milliseconds": 2.0}
    markup = {"task": MARKUP, "criterion": MARKUP, "data": MARKUP, "run": "c"}
    upright = {**markup, "criterion": "Random", "run": "d"}
    bench = find_bench([str(write_bench(folder, {}, kernels, markup, upright, processor=MARKUP))])
    path = folder / "report.html"
    path.write_text(page(*parts(table), bench))
    return path


def test_content_is_plain_and_complete(toy) -> None:
    data = content(*parts(toy))
    assert data["tasks"] == ["Toy Net"] and data["dense"] == {"Toy Net": 90.5}
    curve = data["curves"][1]
    assert (curve["granularity"], curve["method"]) == ("Weights", "Magnitude, Global")
    assert [point["advantage"][0] for point in curve["points"]] == pytest.approx([4.0] * 3)
    assert [point["parameters"] for point in curve["points"]] == [125.0, 250.0, 500.0]
    assert len(curve["runs"]) == 6 and curve["runs"][0]["command"] == "granprune fit --x=1"
    assert data["curves"][0]["points"][0]["advantage"] is None


def test_content_has_latencies_and_dimensions(toy, tmp_path: Path) -> None:
    bench = find_bench([str(write_bench(tmp_path, {"data": "lossy JPEG pixels"}))])
    data = content(*parts(toy.assign(dimensions=2.5)), bench)
    (frontier,) = data["frontiers"]
    assert frontier["tasks"] == ["Toy Net"]
    assert frontier["notes"][0].endswith("on A processor (AVX2), 2 cores")
    assert frontier["notes"][1:] == ["lossy JPEG pixels"]
    line = {"granularity": "Weights", "criterion": "Magnitude", "points": [(3.0, 90.0)]}
    assert frontier["panels"][1] == {"label": "milliseconds for 1 image, 1 thread", "lines": [line]}
    assert data["dimensions"]["Toy Net"][0][:3] == ["Weights", "Magnitude, Global", "1/2"]


def test_content_has_the_advantage_by_size() -> None:
    data = content(*parts(sizes_study(densities=(0.25,))))
    (panel,) = data["sizes"]["Toy Net"]
    assert panel["title"] == "density 1/4"
    (line,) = panel["lines"]
    assert (line["criterion"], line["names"][-1]) == ("Magnitude", "Blocks 72")
    assert [p["size"] for p in line["points"]] == [1, 3, 9, 72]
    assert [p["advantage"][0] for p in line["points"]] == pytest.approx([8, 6, 3, 1])


def test_the_advantage_by_size_is_drawn(browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(*parts(sizes_study())))
    browser.open(path)
    lines = (
        "return [...document.querySelectorAll('.size')].map(p => p.data.find(t => t.name == 'Magnitude').y)"
    )
    assert [y[0] for y in browser.run(lines)] == pytest.approx([8, 4])
    assert browser.errors() == []


def test_one_seed_has_no_interval_in_the_page(toy) -> None:
    point = content(*parts(toy[toy["seed"] == 1]))["curves"][1]["points"][0]
    assert point["accuracy"] == [64.0, None, None]


def test_page_is_one_small_file(path: Path) -> None:
    assert path.stat().st_size < 8_000_000
    assert "default-src 'none'" in path.read_text()[:2000]


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1400])
def test_page_loads_without_errors_or_requests(browser, path: Path, width: int, dark: bool) -> None:
    browser.errors(), browser.requests()
    browser.open(path, width, dark)
    assert browser.run(TRACES) == [2, 2, 2]  # inverted controls are hidden at first
    assert browser.errors() == []
    assert browser.requests() == [path.as_uri()]
    assert browser.run("return document.documentElement.scrollWidth") == width  # nothing sticks out
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(22, 24, 28)" if dark else "rgb(255, 255, 255)")
    paper = browser.run("return document.querySelector('.plot')._fullLayout.paper_bgcolor")
    assert paper == ("#16181c" if dark else "#ffffff")


@pytest.mark.slow
def test_filters_act(browser, path: Path) -> None:
    browser.open(path)
    click = "[...document.querySelectorAll('#methods input')].find(e => e.value == '%s').click()"
    browser.run(click % "inverted Magnitude, Global")
    assert browser.run(TRACES) == [3, 3, 3]
    browser.run(click % "Magnitude, Global")
    assert browser.run(TRACES) == [2, 2, 2]
    assert "Magnitude, Global" not in browser.run(
        "return [...document.querySelectorAll('td:nth-child(4)')].map(e => e.textContent)"
    )
    browser.run(click % "Magnitude, Global")

    title = "return document.querySelector('.plot').layout.xaxis.title.text"
    assert browser.run(FIRST + ".x") == [0.125, 0.25, 0.5]
    select(browser, "axis", "MACs")
    assert browser.run(FIRST + ".x") == [1125, 2250, 4500] and "multiply" in browser.run(title)
    select(browser, "measure", "advantage")
    assert browser.run(FIRST + ".y") == [4, 4, 4]
    assert browser.errors() == []


@pytest.mark.slow
def test_latencies_and_dimensions_of_the_task_are_shown(browser, path: Path) -> None:
    browser.open(path)
    select(browser, "task", "Toy Net")
    assert browser.run("return document.getElementById('notes').textContent") == "Toy: from JPEG"
    drawn = COSTS + ".map(plot => plot.data.map(d => [d.name, d.x[0], d.y[0]]))"
    assert browser.run(drawn) == [
        [["weights", 2, 90], ["kernels", 2, 80]],
        [["weights", 3, 90], ["kernels", 2, 80]],
    ]
    rows = "return document.querySelectorAll('#dimensions tr').length"
    assert browser.run(rows) == 1 + 27  # a head; three granularities, methods and densities
    browser.run("document.getElementById('theme').click()")
    assert len(browser.run(drawn)) == 2 and browser.errors() == []


@pytest.mark.slow
def test_hover_shows_the_run_and_its_command_line_and_markup_stays_text(browser, path: Path) -> None:
    browser.open(path)
    browser.run(
        "const e = document.getElementById('task');"
        "e.selectedIndex = [...e.options].findIndex(option => option.value.includes('script'));"
        "e.dispatchEvent(new Event('change'));"
    )
    browser.point_at(*browser.run(PLACE))
    shown = browser.run("return document.getElementById('run').textContent")
    assert shown.startswith(MARKUP) and "granprune fit --x=" + MARKUP in shown
    label = browser.run("return document.querySelector('.hoverlayer').textContent")
    assert "<img src=x" in label and "<b>bold" in label
    assert browser.run("return document.querySelectorAll('#run *').length") == 3
    assert browser.run("return window.broken === undefined && document.images.length === 0") is True
    assert MARKUP in browser.run("return document.getElementById('task').textContent")
    said = browser.run("return [...document.querySelectorAll('#frontiers p')].map(p => p.textContent)")
    assert MARKUP in said[0] and said[1] == MARKUP  # the machine and the images
    assert "<img src=x" in browser.run("return document.querySelector('.cost .legend').textContent")
    assert browser.errors() == []
