"""Measurements of `granprune bench` that lie beside the runs."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from granprune.errors import UserError

FILE = "bench.json"
WHAT = ("architecture", "task", "network", "run", "variant", "engine", "precision", "batch", "threads")
MEASURED = (
    "granularity",
    "criterion",
    "density",
    "accuracy",
    "macs",
    "milliseconds",
    "low",
    "high",
    "over_best_dense",
)
HEAD = [
    "network",
    "task",
    "batch",
    "threads",
    "fastest engine",
    "ms (quartiles)",
    "times the best dense's speed",
]
Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What one machine has measured.

    Args:
        machine: Its processor, cores and more.
        missing: What could not be measured.
        rows: A row a network, form, batch size and number of threads.
    """

    machine: dict[str, Any]
    missing: list[str]
    rows: list[Row]

    @property
    def words(self) -> str:
        """The machine in words; processors of one name can have different instructions."""
        about = self.machine
        return f"{about['processor']} ({about['instructions']}), {about['cores']} cores"

    def fastest(self) -> list[list[str]]:
        """Columns `HEAD`: each pruned network's fastest float32 form, batch size and number of threads."""
        from granprune.deploy.bench.tables import fastest  # takes seconds, for torch

        together: dict[tuple[str, int, int], list[Row]] = {}
        for row in self.rows:
            together.setdefault((row["architecture"], row["threads"], row["batch"]), []).append(row)
        return [_words(row) for rows in together.values() for row in fastest(rows)]

    def write(self, folder: Path) -> None:
        """Keep the measurements where a report of that folder finds them."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=1) + "\n")


def find_bench(places: Iterable[str]) -> Bench | None:
    """Read measurements from folders that hold some at any depth, and from beside tables.

    Args:
        places: As for `collect`.

    Returns:
        All of them, of what was measured again the newest; None if there are none.

    Raises:
        UserError: They come from several machines, or a file is not what it should be.
    """
    paths = {path.resolve(): path for place in places for path in _paths(Path(place))}.values()
    found = [_read(path) for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns)]
    if not found:
        return None
    machines = sorted({bench.words for bench in found})
    if len(machines) > 1:
        raise UserError(f"latencies of several machines do not compare: {' and '.join(machines)}")
    rows = {tuple(row[key] for key in WHAT): row for bench in found for row in bench.rows}
    missing = dict.fromkeys(line for bench in found for line in bench.missing)
    return Bench(found[-1].machine, list(missing), list(rows.values()))


def _words(row: Row) -> list[str]:
    times = row["over_best_dense"]
    return [
        row["network"],
        row["task"] or "-",
        str(row["batch"]),
        str(row["threads"]),
        row["engine"] + ", compact" * (row["variant"] == "compact"),
        f"{row['milliseconds']:.3f} ({row['low']:.3f} to {row['high']:.3f})",
        "-" if times is None else f"{times:.2f}",
    ]


def _paths(place: Path) -> list[Path]:
    if place.is_dir():
        return list(place.rglob(FILE))
    return [place.with_name(FILE)] if place.with_name(FILE).exists() else []


def _read(path: Path) -> Bench:
    try:
        bench = Bench(**json.loads(path.read_text()))
        complete = bench.words and all(key in row for row in bench.rows for key in WHAT + MEASURED)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is not what granprune bench writes: {error!r}") from error
    if not complete:
        raise UserError(
            f"{path} is not what granprune bench writes: a row lacks some of {', '.join(WHAT + MEASURED)}"
        )
    return bench
