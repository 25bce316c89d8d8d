from pathlib import Path

import pytest

from granprune.report.curves import curves
from granprune.report.headline import headline, trends
from granprune.report.page import content, page

MARKUP = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 1'><b>bold"
LINES = "data.filter(trace => trace.mode == 'lines+markers')"
TRACES = f"return [...document.querySelectorAll('.plot')].map(plot => plot.{LINES}.length)"
FIRST = f"return document.querySelector('.plot').{LINES}[0]"
PLACE = """
const plot = document.querySelector('.plot'), box = plot.getBoundingClientRect();
const {xaxis, yaxis} = plot._fullLayout;
const runs = plot.data.find(trace => trace.customdata);
return [box.x + xaxis._offset + xaxis.d2p(runs.x[0]), box.y + yaxis._offset + yaxis.d2p(runs.y[0])];
"""


def parts(table) -> tuple:
    found = curves(table)
    entries = {"costs 10 points": headline(table, found, lambda dense: 80.5)}
    return table, found, entries, {words: trends(here) for words, here in entries.items()}


@pytest.fixture(scope="module")
def path(toy, tmp_path_factory) -> Path:
    other = toy.assign(task=MARKUP, name=MARKUP + toy["name"], command="granprune fit --x=" + MARKUP)
    import pandas as pd

    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(*parts(pd.concat([toy, other], ignore_index=True))))
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

    def select(control: str, value: str) -> None:
        browser.run(
            f"const control = document.getElementById('{control}'); control.value = '{value}';"
            "control.dispatchEvent(new Event('change'));"
        )

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
    select("axis", "MACs")
    assert browser.run(FIRST + ".x") == [1125, 2250, 4500] and "multiply" in browser.run(title)
    select("measure", "advantage")
    assert browser.run(FIRST + ".y") == [4, 4, 4]
    assert browser.errors() == []


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
    assert browser.errors() == []
