"""A process for each library: one thread pool in each, and the libraries take turns."""

import logging
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

from granprune.deploy.bench.forms import ENGINES, Variant, network_of
from granprune.deploy.packed import Array
from granprune.deploy.storage import load_model
from granprune.errors import UserError

_calls: dict[str, Callable[[], Any]] = {}  # what this process has built


class Unavailable(Exception):
    """An engine cannot run a network here; the text says why."""


class Libraries:
    """Runs functions in the process of a library; the processes start at their first use.

    Args:
        executor: Makes a process.
    """

    def __init__(self, executor: Callable[[], Executor] | None = None) -> None:
        self._executor = executor or _process
        self._running: dict[str, Executor] = {}

    def __enter__(self) -> "Libraries":
        return self

    def __exit__(self, *error: object) -> None:
        for executor in self._running.values():
            executor.shutdown()

    def run(self, library: str, function: Callable[..., Any], *args: Any) -> Any:
        """What the function returns there."""
        if library not in self._running:
            self._running[library] = self._executor()
        return self._running[library].submit(function, *args).result()

    def forget(self) -> None:
        """Free what has been built."""
        for library in self._running:
            self.run(library, forget)


def _process() -> Executor:
    """A process that is silent about what a library says of itself."""
    return ProcessPoolExecutor(1, get_context("spawn"), logging.disable, (logging.WARNING,))


def build(key: str, folder: Path, variant: Variant, engine: str, images: Array, threads: int) -> Array:
    """Prepare a form of a stored network and return its outputs.

    Args:
        key: Its name from now on.
        folder: Where the network is stored.
        variant: Which network is made of it.
        engine: What runs it.
        images: The batch.
        threads: How many threads it may use.

    Raises:
        Unavailable: The engine cannot do that.
    """
    x = torch.from_numpy(images)
    network = network_of(variant, engine, load_model(folder))
    try:
        with torch.no_grad():
            call = ENGINES[engine].build(network, x, threads)
            y = call(x)
    except (UserError, RuntimeError, ImportError) as error:
        reason = " ".join((str(error) or type(error).__name__).split())
        raise Unavailable(reason[:160]) from None
    _calls[key] = lambda: call(x)
    return y.numpy().copy()


def measure(key: str, seconds: float) -> float:
    """The median time in seconds of calls made for a while, after one that does not count."""
    call = _calls[key]
    times: list[float] = []
    with torch.no_grad():
        call()
        end = perf_counter() + seconds
        while not times or perf_counter() < end:
            start = perf_counter()
            call()
            times.append(perf_counter() - start)
    return median(times)


def forget() -> None:
    """Free what this process has built."""
    _calls.clear()
    torch._dynamo.reset()
