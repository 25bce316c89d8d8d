"""What a run reports, as tables for the terminal. Numbers are exact, with thousands separators."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from granprune.dimensionality import Dimensionality

Record = Mapping[str, Any]  # what a round leaves behind; see granprune.run.record.round_record


def round_table(record: Record) -> Table:
    """What is left of each layer, and of the network, at the end of a round.

    Args:
        record: A round record. Its totals count what masks cannot reach as well, such as shortcuts,
            the classifier and biases, so they exceed the sum of the layers.
    """
    table = _table("Layer", "Components", "Kept", "Density", "Parameters\nkept", "MACs", "Effective\nMACs")
    table.title = f"Round {record['round']}, after step {record['step']:,}"
    table.caption = _caption(record)
    dead = set(record["dead_layers"])
    for layer in record["layers"]:
        style = "bold red" if layer["name"] in dead else ""
        name = f"{layer['name']} dead" if style else layer["name"]
        table.add_row(Text(name), *_numbers(layer), style=style)
    table.add_section()
    table.add_row("whole network", *_numbers(record), style="bold")
    return table


def summary_table(records: Sequence[Record]) -> Table:
    """A whole run: one line a round, pruned further from line to line."""
    table = _table("Round", "Density", "Parameters\nkept", "MACs", "Effective\nMACs", "Train", "Test")
    table.title = "Accuracy by round"
    for record in records:
        table.add_row(
            str(record["round"]),
            density_text(record["density"]),
            *(f"{record[key]:,}" for key in ("kept_parameters", "macs", "effective_macs")),
            percent(record.get("train_accuracy")),
            percent(record.get("test_accuracy")),
        )
    return table


def dimensionality_table(found: Mapping[str, Dimensionality]) -> Table:
    """Effective and actual dimensions of each layer's activations."""
    table = _table("Layer", "Effective\ndimensions", "Actual\ndimensions")
    for name, layer in found.items():
        table.add_row(Text(name), f"{layer.effective:,.2f}", f"{layer.actual:,}")
    return table


def percent(fraction: float | None) -> str:
    """A fraction in percent; a dash if there is none.

    >>> percent(0.8421), percent(None)
    ('84.21 %', '-')
    """
    return "-" if fraction is None else f"{100 * fraction:.2f} %"


def density_text(density: float) -> str:
    """A density to four decimals, or three digits if it is too small for them.

    >>> density_text(1.0), density_text(1 / 3), density_text(2**-10)
    ('1.0000', '0.3333', '0.000977')
    """
    return f"{density:.4f}" if density >= 0.001 or not density else f"{density:.3g}"


def _table(first: str, *numbers: str) -> Table:
    # The box alone parts the columns: six numbers of a large network then fit into 80 characters.
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.title_justify = table.caption_justify = "left"
    table.add_column(first, overflow="fold", no_wrap=first == "Round")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _numbers(counts: Record) -> list[str]:
    kept = [f"{counts[key]:,}" for key in ("components", "kept")]
    costs = [f"{counts[key]:,}" for key in ("kept_parameters", "macs", "effective_macs")]
    return [*kept, density_text(counts["density"]), *costs]


def _caption(record: Record) -> str:
    parameters = f"{record['kept_parameters']:,} of {record['parameters']:,} parameters"
    macs = f"{record['effective_macs']:,} of {record['dense_macs']:,} MACs"
    accuracy = f"train {percent(record.get('train_accuracy'))}, test {percent(record.get('test_accuracy'))}"
    return f"accuracy: {accuracy}\nleft: {parameters}, {macs}"
