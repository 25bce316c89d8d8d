"""`granprune bench`: how fast pruned networks are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import groupby, product
from pathlib import Path

from jsonargparse.typing import PositiveFloat, PositiveInt
from rich.console import Console

from granprune.deploy.bench import frontier, results, tables
from granprune.deploy.bench.libraries import Libraries
from granprune.deploy.bench.measure import Group, measure_group
from granprune.deploy.bench.results import Row
from granprune.deploy.bench.subjects import Subject, of_run, random_subjects
from granprune.deploy.options import count_of, density_of, listed
from granprune.errors import UserError
from granprune.parser import OneLineParser

DESCRIPTION = """Time every deployed form of pruned networks, in turns with the dense network in torch,
torch.compile, ONNX Runtime and OpenVINO. Writes bench.csv, bench.json and, for runs, figures of
accuracy over latency. Let nothing else run on the machine meanwhile."""


@dataclass
class BenchOptions:
    """What to time.

    Args:
        runs: Directories of finished runs; without any, give a network.
        network: ResNet20 or DBSN, untrained and with random masks, instead of runs.
        granularity: Of the random masks: Weights, Kernels, Channels or Nodes.
        densities: Of the random masks, separated by commas. Channels and nodes: the width.
        batch: Images at a time, separated by commas.
        threads: Threads of each engine, separated by commas.
        rounds: How often every engine has its turn.
        seconds: How long a turn is; at least one batch is computed.
        out: Folder of bench.csv, bench.json and the figures.
        json: Write the measurements to this file instead of bench.json.
        data_dir: Folder of the data set, if it is not where the runs found it.
    """

    runs: list[str]
    network: str | None = None
    granularity: str = "Weights"
    densities: str = "0.5,0.25,0.125,0.05"
    batch: str = "1,128"
    threads: str = "1"
    rounds: PositiveInt = 7
    seconds: PositiveFloat = 0.1
    out: str = "bench"
    json: str | None = None
    data_dir: str | None = None


def main(words: Sequence[str]) -> int:
    """Run `granprune bench`.

    Args:
        words: What follows `bench`.
    """
    parser = OneLineParser(prog="granprune bench", description=DESCRIPTION)
    parser.add_argument("runs", nargs="*", type=str, default=[], help="Directories of finished runs.")
    parser.add_class_arguments(BenchOptions, skip={"runs"})
    options = parser.parse_args(list(words))
    bench(BenchOptions(**{field.name: options[field.name] for field in fields(BenchOptions)}))
    return 0


def bench(options: BenchOptions, libraries: Libraries | None = None) -> list[Row]:
    """Time, print, and write files.

    Args:
        options: What to time.
        libraries: Where the engines run; processes of their own if not given.

    Returns:
        The rows of bench.csv.

    Raises:
        UserError: There is nothing to time, or something that cannot be timed.
    """
    console = Console(highlight=False, soft_wrap=True, width=140)
    about, out = results.machine(), Path(options.out)
    table: list[Row] = []
    missing: dict[str, None] = {}
    with libraries or Libraries() as processes:
        for group in _groups(options, processes):
            rows = results.rows(group)
            _print(rows, group, console)
            table += rows
            missing |= dict.fromkeys(group.missing)
            out.mkdir(parents=True, exist_ok=True)  # written group by group: the rest takes minutes
            results.write_csv(table, out / "bench.csv")
            results.write_json(table, list(missing), about, Path(options.json or out / "bench.json"))
    figures = frontier.draw(table, out)
    written = ", ".join(str(path) for path in [out / "bench.csv", *figures])
    machine = f"{about['processor']}, {about['cores']} cores, load before {about['load']}"
    console.print(f"{machine}; wrote {written}")
    return table


def subjects_of(options: BenchOptions, images: int) -> list[Subject]:
    """The networks that are meant.

    Raises:
        UserError: None or both of runs and network are given, or one of them is wrong.
    """
    if bool(options.runs) == bool(options.network):
        raise UserError("give either run directories or --network, e.g. granprune bench --network ResNet20")
    if options.network is None:
        return [of_run(run, images, options.data_dir) for run in options.runs]
    densities = listed(options.densities, "--densities", density_of, "numbers over 0 and up to 1")
    return random_subjects(options.network, options.granularity, densities, images)


def _groups(options: BenchOptions, libraries: Libraries) -> Iterator[Group]:
    batches = listed(options.batch, "--batch", count_of, "integers of at least 1")
    threads = listed(options.threads, "--threads", count_of, "integers of at least 1")
    if not batches or not threads:
        raise UserError("--batch and --threads need at least one value")
    subjects = sorted(subjects_of(options, max(batches)), key=lambda subject: subject.architecture)
    for _, alike in groupby(subjects, key=lambda subject: subject.architecture):
        together = list(alike)
        for count, batch in product(threads, batches):
            yield measure_group(together, batch, count, libraries, options.rounds, options.seconds)


def _print(rows: Sequence[Row], group: Group, console: Console) -> None:
    if rows:
        console.print(tables.table(rows))
        for line in tables.conclusions(rows):
            console.print(line)
    for line in group.missing:
        console.print(f"missing: {line}")
    console.print()
