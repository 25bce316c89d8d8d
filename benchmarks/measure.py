"""Rivals in turns, medians, spread and peak memory: the arithmetic of every benchmark."""

import resource
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

Clock = Callable[[], float]  # seconds since any fixed instant


@dataclass
class Pairs:
    """What two rivals took in turns: `ours[i]` right before `rival[i]`, under the same load."""

    ours: list[float] = field(default_factory=list)
    rival: list[float] = field(default_factory=list)

    def scaled(self, ours: float, rival: float) -> "Pairs":
        """The same pairs in other units: each side multiplied by its factor."""
        return Pairs([ours * value for value in self.ours], [rival * value for value in self.rival])

    def rates(self, ours: float, rival: float) -> "Pairs":
        """Work per second, given the work that each side did in the seconds measured."""
        return Pairs([ours / value for value in self.ours], [rival / value for value in self.rival])


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: What was measured.
        unit: Of `ours`, `rival` and `floor`.
        ours: Median over the turns.
        rival: The rival's median; None where a limit is asked for instead.
        ratio: Median of the paired ratios; None without a rival.
        asked: The least or largest value of the ratio, or of `ours` without a rival.
        bound: Whether that is a least ("at least") or a largest ("at most") value.
        ok: Whether it is met.
        spread: First and third quartile of what `asked` bounds.
        peak_memory_mib: Most memory that the measured process ever held, the rival's included.
        floor: What `ours` could be at best, from operations and bytes.
        note: What the floor is made of, and what share of it is reached.
    """

    name: str
    unit: str
    ours: float
    rival: float | None
    ratio: float | None
    asked: float
    bound: str
    ok: bool
    spread: tuple[float, float]
    peak_memory_mib: float
    floor: float
    note: str


def alternate(
    ours: Callable[[], object], rival: Callable[[], object], repeats: int, clock: Clock = perf_counter
) -> Pairs:
    """Time two rivals A B A B ..., so that both meet the same state of the machine."""
    pairs = Pairs()
    for _ in range(repeats):
        pairs.ours.append(seconds(ours, clock))
        pairs.rival.append(seconds(rival, clock))
    return pairs


def seconds(work: Callable[[], object], clock: Clock = perf_counter) -> float:
    """How long a call takes."""
    start = clock()
    work()
    return clock() - start


def faster(name: str, unit: str, pairs: Pairs, at_least: float, floor: float, note: str) -> Row:
    """Ours takes less time than the rival: the ratio is rival / ours."""
    ratios = [rival / ours for ours, rival in zip(pairs.ours, pairs.rival, strict=True)]
    note = f"{note}; {percent(floor / statistics.median(pairs.ours))} reached"
    return _compared(name, unit, pairs, ratios, at_least, "at least", floor, note)


def share(name: str, unit: str, pairs: Pairs, asked: float, bound: str, floor: float, note: str) -> Row:
    """Ours as a multiple or a part of the rival: the ratio is ours / rival."""
    ratios = [ours / rival for ours, rival in zip(pairs.ours, pairs.rival, strict=True)]
    reached = floor / statistics.median(pairs.ours)
    note = f"{note}; {percent(1 / reached if bound == 'at least' else reached)} reached"
    return _compared(name, unit, pairs, ratios, asked, bound, floor, note)


def limited(
    name: str,
    unit: str,
    values: Sequence[float],
    at_most: float,
    floor: float,
    note: str,
    peak: float | None = None,
) -> Row:
    """Ours stays below a limit; there is no rival. `peak` is a memory to state instead of this process's."""
    median = statistics.median(values)
    ok, spread = median <= at_most, quartiles(values)
    peak = peak_memory_mib() if peak is None else peak
    note = f"{note}; {percent(floor / median)} reached"
    return Row(name, unit, median, None, None, at_most, "at most", ok, spread, peak, floor, note)


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The first and third quartile, interpolated; a single value is both."""
    if len(values) == 1:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def percent(share: float) -> str:
    """A share with two digits at least."""
    return f"{100 * share:.2g} %" if share < 0.095 else f"{100 * share:.0f} %"


def peak_memory_mib() -> float:
    """Most memory that this process has held at once (VmHWM).

    Not `ru_maxrss`, which counts what the parent held when it started this process.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kib) / 1024


def peak_memory_of_children_mib() -> float:
    """Most memory of any process that this one started and that has ended; not less than its own then."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def _compared(
    name: str,
    unit: str,
    pairs: Pairs,
    ratios: Sequence[float],
    asked: float,
    bound: str,
    floor: float,
    note: str,
) -> Row:
    ratio = statistics.median(ratios)
    ours, rival = statistics.median(pairs.ours), statistics.median(pairs.rival)
    ok = ratio >= asked if bound == "at least" else ratio <= asked
    spread, peak = quartiles(ratios), peak_memory_mib()
    return Row(name, unit, ours, rival, ratio, asked, bound, ok, spread, peak, floor, note)
