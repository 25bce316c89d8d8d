"""`granprune report`: tables, figures and a page from finished runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from granprune.parser import OneLineParser
from granprune.report.collect import collect
from granprune.report.curves import curves
from granprune.report.drawing import save
from granprune.report.gallery import gallery
from granprune.report.headline import headline, trends
from granprune.report.latency import find_bench
from granprune.report.page import page
from granprune.report.text import markdown

DESCRIPTION = """Compare finished runs: a table of them (runs.csv), the comparison in words and tables
(report.md), figures (PNG and PDF), and an interactive page that needs no network (report.html)."""


@dataclass
class ReportOptions:
    """What to report.

    Args:
        runs: Run directories, folders that hold some at any depth, or tables (runs.csv) of an earlier report.
            Latencies that `granprune bench` left in a folder, or beside a table, are reported as well.
        out: Folder that everything is written to.
        drops: Points of test accuracy below the unpruned network at which random pruning is compared
            with the criteria; the first is the headline. The paper compares at 5.
        accuracy: Compare where random pruning reaches this test accuracy in percent instead.
        note: A line that is printed below every figure.
    """

    runs: list[str]
    out: str = "report"
    drops: list[float] = (5.0, 2.0, 10.0)  # type: ignore[assignment]
    accuracy: float | None = None
    note: str | None = None


def main(words: Sequence[str]) -> int:
    """Run `granprune report`.

    Args:
        words: What follows `report`.
    """
    options = report_parser().parse_args(list(words))
    report(ReportOptions(**{field.name: options[field.name] for field in fields(ReportOptions)}))
    return 0


def report_parser() -> OneLineParser:
    """The options of `granprune report`."""
    parser = OneLineParser(prog="granprune report", description=DESCRIPTION)
    parser.add_argument(
        "runs", type=str, nargs="+", help="Run directories, folders of runs, or tables of runs."
    )
    parser.add_class_arguments(ReportOptions, skip={"runs"})
    return parser


def report(options: ReportOptions) -> None:
    """Write the whole report."""
    table, bench = collect(options.runs), find_bench(options.runs)
    found = curves(table)
    targets = _targets(options)
    entries = {words: headline(table, found, target) for words, target in targets.items()}
    trend = {words: trends(here) for words, here in entries.items()}
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "runs.csv", index=False)
    if bench:
        bench.write(out)
    (out / "report.md").write_text(markdown(table, found, entries, trend, bench))
    drawn = write_figures(gallery(table, found, options.note, bench), out)
    (out / "report.html").write_text(page(table, found, entries, trend, bench))
    print(f"{len(table)} runs, {len(drawn)} figures, report.md and report.html in {out}")


def write_figures(drawn: Mapping[str, Figure], out: Path) -> list[Path]:
    """Write figures, by their names, as PNG and PDF."""
    return [path for name, figure in drawn.items() for path in save(figure, out / name)]


def _targets(options: ReportOptions) -> dict[str, Callable[[float], float]]:
    if options.accuracy is not None:
        fixed = options.accuracy
        return {f"leaves {fixed:g} %": lambda dense: fixed}
    return {f"costs {drop:g} points": partial(_less, drop) for drop in options.drops}


def _less(drop: float, dense: float) -> float:
    return dense - drop
