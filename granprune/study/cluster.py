"""Runs on Ray: embedded and on this machine alone, or on a cluster that is already there."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from granprune.errors import UserError
from granprune.study import beginning, work
from granprune.study.plan import Study
from granprune.study.resolve import FitParser, Run

# Ray started by us sends nothing home, and takes the loopback address for its own.
EMBEDDED = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
POLL_SECONDS = 1.0
CANCEL_SECONDS = 30.0  # for interrupted runs to finish their step and save


@contextmanager
def connected(address: str | None, cpus: int | None, dashboard: bool) -> Iterator[None]:
    """Within the block, Ray is there.

    Args:
        address: Of a cluster; None starts one in this process, reachable from this machine only.
        cpus: Cores that an embedded Ray may use; None: all.
        dashboard: Whether an embedded Ray serves its dashboard, on this machine only.

    Raises:
        UserError: Ray is not installed, or there is no cluster at that address.
    """
    if address is None:
        os.environ.update(EMBEDDED)
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UserError("a study needs Ray: pip install 'granprune[study]'") from error
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        options |= {"num_cpus": cpus, "include_dashboard": dashboard}
    try:
        ray.init(address=address or "local", **options)
    except ConnectionError as error:
        raise UserError(f"there is no Ray cluster at {address}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def submit(study: Study, runs: Sequence[Run]) -> dict[Any, Run]:
    """Hand runs to Ray, those with a beginning in common after it.

    Returns:
        Ray's reference to each run that is to come -> the run.
    """
    submitted = {}
    begun = _submit_beginnings(study, runs)
    for run in runs:
        if run.name in begun:
            after = (begun[run.name], beginning.length(run))
            reference = _remote(work.make_after, study, run.name).remote(_task(study, run), *after)
        else:
            reference = _remote(work.make, study, run.name).remote(_task(study, run))
        submitted[reference] = run
    return submitted


def wait(pending: Sequence[Any]) -> dict[Any, str | None]:
    """What has ended within a second: the reference -> what went wrong, None if nothing."""
    import ray

    ended, _ = ray.wait(list(pending), num_returns=len(pending), timeout=POLL_SECONDS)
    return {reference: _error(reference) for reference in ended}


def cancel(pending: Sequence[Any]) -> None:
    """Ask runs to save and stop, and give them the time for it."""
    import ray

    for reference in pending:
        ray.cancel(reference)
    ray.wait(list(pending), num_returns=len(pending), timeout=CANCEL_SECONDS)


def _submit_beginnings(study: Study, runs: Sequence[Run]) -> dict[str, Any]:
    """Run name -> reference to its beginning's directory."""
    fresh = [run for run in runs if not run.directory.saved()]
    parser = FitParser()
    begun = {}
    for group in beginning.shared(fresh):
        first = parser.resolve(beginning.words(group[0], str(Path(study.folder) / "beginnings")))
        task = _task(study, first)
        reference = _remote(work.make_beginning, study, first.name).remote(task, beginning.length(first))
        begun.update({run.name: reference for run in group})
    return begun


def _remote(function: Any, study: Study, name: str) -> Any:
    import ray

    return ray.remote(function).options(
        name=name,
        num_cpus=study.resources.cpus,
        num_gpus=study.resources.gpus,
        max_retries=study.retries,
        retry_exceptions=[work.Unfinished],
    )


def _task(study: Study, run: Run) -> work.Task:
    return work.Task(run.words, run.directory, study.resources.cpus, os.getcwd())


def _error(reference: Any) -> str | None:
    import ray

    try:
        ray.get(reference)
    except ray.exceptions.RayError as error:
        return " ".join(str(getattr(error, "cause", None) or error).split())
    return None
