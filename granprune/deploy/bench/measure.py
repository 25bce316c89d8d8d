"""Measures the forms of networks of one architecture in turns."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from granprune.deploy.bench.forms import DENSE, ENGINES, Engine, Variant, forms
from granprune.deploy.bench.libraries import Libraries, Unavailable, build, measure
from granprune.deploy.bench.subjects import Subject, unpruned
from granprune.deploy.packed import Array
from granprune.deploy.storage import save
from granprune.masking import MaskedModel


@dataclass
class Timing:
    """A form of a network and how long a batch takes.

    Args:
        subject: The network.
        variant: Which network.
        form: What runs it, a key of `ENGINES`.
        key: Its name among those built.
        error: The largest relative error of its outputs against torch's.
        seconds: A batch's time, round by round.
    """

    subject: Subject
    variant: Variant
    form: str
    key: str
    error: float = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def engine(self) -> Engine:
        """What runs it."""
        return ENGINES[self.form]


@dataclass
class Group:
    """What was measured in alternation.

    Args:
        batch: Images at a time.
        threads: Threads of each engine.
        timings: One of each form.
        missing: Forms that are not there, and why, in words.
    """

    batch: int
    threads: int
    timings: list[Timing] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def measure_group(
    subjects: Sequence[Subject],
    batch: int,
    threads: int,
    libraries: Libraries,
    rounds: int = 7,
    seconds: float = 0.1,
) -> Group:
    """Time all forms of networks of one architecture and of their dense network.

    Each round gives every form one turn, in its library's own process, and starts with another form.

    Args:
        subjects: The pruned networks.
        batch: Images at a time.
        threads: Threads of each engine.
        libraries: Where the engines run.
        rounds: How often every form has its turn.
        seconds: How long a turn is, at least one batch.
    """
    group = Group(batch, threads)
    dense = unpruned(subjects[0])
    wanted = [Timing(dense, "dense", form, form) for form in DENSE]
    for i, subject in enumerate(subjects):
        wanted += [Timing(subject, *form, f"{i} {form}") for form in forms(subject.model)]
    what = f"batch {batch}, {threads} thread{'s' * (threads > 1)}"
    errors = Console(stderr=True)
    with TemporaryDirectory() as folder:
        networks = enumerate([dense, *subjects])
        stored = {id(s): save(s.model, Path(folder) / str(i)).parent for i, s in networks}
        for timing in track(wanted, f"Preparing {what}", console=errors, transient=True):
            try:
                timing.error = _prepare(timing, stored[id(timing.subject)], group, libraries)
                group.timings.append(timing)
            except Unavailable as problem:
                compact = "compact " if timing.variant == "compact" else ""
                group.missing.append(f"{timing.form}, {compact}{timing.subject.name}: {problem}")
    for timing in track(_turns(group.timings, rounds), f"Timing {what}", console=errors, transient=True):
        timing.seconds.append(libraries.run(timing.engine.library, measure, timing.key, seconds))
    libraries.forget()
    return group


def _prepare(timing: Timing, folder: Path, group: Group, libraries: Libraries) -> float:
    """Build a form; returns its error.

    Raises:
        Unavailable: It cannot be built, or its outputs are wrong.
    """
    engine, subject = timing.engine, timing.subject
    if engine.missing:
        raise Unavailable(f"{', '.join(engine.missing)} not installed; pip install 'granprune[bench]'")
    images = subject.images[: group.batch]
    arguments = timing.key, folder, timing.variant, timing.form, images.numpy(), group.threads
    outputs: Array = libraries.run(engine.library, build, *arguments)
    error = _error(torch.from_numpy(outputs), subject.model, images)
    if not error <= engine.tolerance:
        raise Unavailable(f"its outputs are off by {error:.1e}, more than {engine.tolerance:g}")
    return error


def _error(outputs: Tensor, model: MaskedModel, images: Tensor) -> float:
    with torch.no_grad():
        wanted = model(images)
    return float((outputs - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30))


def _turns(timings: list[Timing], rounds: int) -> list[Timing]:
    starts = [r % max(len(timings), 1) for r in range(rounds)]
    return [timing for start in starts for timing in timings[start:] + timings[:start]]
