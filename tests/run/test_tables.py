import io

import pytest
from rich.console import Console
from rich.table import Table

from granprune.dimensionality import Dimensionality
from granprune.run.tables import density_text, dimensionality_table, round_table, summary_table


def layer(name, kept, of=4_000_000):
    return {
        "name": name,
        "components": of,
        "kept": kept,
        "density": kept / of,
        "parameters": of,
        "kept_parameters": kept,
        "macs": 2 * kept,
        "effective_macs": kept,
    }


RECORD = {
    "round": 2,
    "step": 90_000,
    "density": 0.25,
    "components": 8_000_000,
    "kept": 2_000_000,
    "parameters": 8_001_234,
    "kept_parameters": 2_001_234,
    "macs": 40_551_040,
    "effective_macs": 12_345_678,
    "dense_macs": 99_999_999,
    "dead_layers": ["layers.1.linear"],
    "layers": [layer("layers.0.linear", 2_000_000), layer("layers.1.linear", 0)],
    "train_accuracy": 0.90128,
    "test_accuracy": 0.8421,
}


def render(table: Table, width: int = 80, color: bool = False) -> list[str]:
    file, colors = io.StringIO(), "standard" if color else None
    console = Console(file=file, width=width, force_terminal=color, color_system=colors, no_color=False)
    console.print(table)
    return file.getvalue().splitlines()


def test_a_layer_is_a_line_of_exact_numbers():
    (line,) = (line for line in render(round_table(RECORD)) if line.startswith("layers.0"))
    assert line.split() == [
        *("layers.0.linear", "4,000,000", "2,000,000", "0.5000", "2,000,000", "4,000,000", "2,000,000")
    ]


def test_the_last_line_is_the_whole_network():
    (line,) = (line for line in render(round_table(RECORD)) if line.startswith("whole network"))
    assert line.split()[2:] == ["8,000,000", "2,000,000", "0.2500", "2,001,234", "40,551,040", "12,345,678"]


def test_the_caption_holds_accuracy_and_what_is_left():
    text = "\n".join(render(round_table(RECORD)))
    assert "train 90.13 %, test 84.21 %" in text
    assert "2,001,234 of 8,001,234 parameters, 12,345,678 of 99,999,999 MACs" in text


def test_a_dead_layer_is_red_and_called_dead():
    lines = render(round_table(RECORD), color=True, width=100)
    dead = [line for line in lines if "layers.1.linear dead" in line]
    assert len(dead) == 1
    assert "\x1b[1;31m" in dead[0]
    assert sum("dead" in line for line in lines) == 1


def test_eighty_columns_hold_all_digits():
    lines = render(round_table(RECORD), width=80)
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)


def test_layer_names_are_not_markup():
    record = {**RECORD, "layers": [layer("layers[bold]", 1)]}
    assert any(line.startswith("layers[bold]") for line in render(round_table(record)))


def test_a_round_is_a_line_of_the_summary():
    first = {**RECORD, "round": 0, "density": 1.0, "test_accuracy": 0.5, "train_accuracy": None}
    *_, zero, two = [line.split() for line in render(summary_table([first, RECORD])) if line.strip()]
    assert zero == ["0", "1.0000", "2,001,234", "40,551,040", "12,345,678", "-", "50.00", "%"]
    assert two == [*("2", "0.2500", "2,001,234", "40,551,040", "12,345,678", "90.13", "%", "84.21", "%")]


def test_dimensionality_has_a_line_a_layer():
    table = dimensionality_table({"conv": Dimensionality(12.345, 16384), "head": Dimensionality(0.0, 10)})
    assert [line.split() for line in render(table)[-2:]] == [
        ["conv", "12.35", "16,384"],
        ["head", "0.00", "10"],
    ]


@pytest.mark.parametrize(("density", "text"), [(0.0, "0.0000"), (0.5, "0.5000"), (2**-10, "0.000977")])
def test_small_densities_keep_their_digits(density, text):
    assert density_text(density) == text
