import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from granprune.run.directory import RunDirectory
from granprune.study import cluster
from granprune.study.resolve import FitParser, Run, resolve
from granprune.study.work import Task, make

pytestmark = pytest.mark.slow
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
PATIENCE = 300  # seconds until something that must come is given up


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def start(file: Path, log: Path) -> subprocess.Popen:
    with open(log, "a") as out:
        command = [sys.executable, "-m", "granprune", "study", "--config", str(file), "--cpus", "2"]
        return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)


def study_file(tmp_path: Path, **changes: object) -> Path:
    base = str(Path(__file__).parent.parent / "small.yaml")
    path = tmp_path / "study.yaml"
    study = {"name": "killed", "base": [base], "out": str(tmp_path / "runs"), **changes}
    path.write_text(json.dumps(study))  # JSON is YAML
    return path


def runs_of(file: Path) -> list[Run]:
    from granprune.study.plan import Study

    return resolve(Study(**json.loads(file.read_text())).commands())


def owner(directory: RunDirectory) -> int:
    return json.loads((directory.path / ".owner.json").read_text())["pid"]


def at_work(run: Run) -> bool:
    """Whether a worker of Ray is making the run."""
    try:
        process = Path(f"/proc/{owner(run.directory)}")
        return not run.directory.complete and "ray::" in (process / "cmdline").read_text()
    except (FileNotFoundError, json.JSONDecodeError):  # it is being written
        return False


def test_killed_worker_and_killed_driver_lose_nothing(tmp_path: Path, parser: FitParser, monkeypatch) -> None:
    settings = {
        "pruning.schedule.init_args.steps": 300,
        "checkpoint.every_steps": 20,
        "trainer.val_check_interval": 20,
    }
    axes = {"criterion": ["Magnitude", "Random"], "density": [0.5, 0.25, 0.125]}
    file = study_file(tmp_path, settings=settings, axes=axes)
    runs = runs_of(file)

    def finished() -> dict[str, int]:
        """Run -> when its result was written."""
        return {r.name: r.directory.result.stat().st_mtime_ns for r in runs if r.directory.complete}

    def underway() -> list[Run]:
        """Runs that are beyond the beginning they share, but not at their end."""
        return [r for r in runs if len(r.directory.saved()) > 1 and not r.directory.complete and at_work(r)]

    driver = start(file, tmp_path / "driver.txt")
    until(lambda: bool(finished()))
    driver.kill()
    driver.wait()
    until(lambda: not any(map(at_work, runs)))  # no run goes on unseen
    before = finished()
    assert 0 < len(before) < len(runs)

    driver = start(file, tmp_path / "driver.txt")
    until(lambda: bool(underway()))
    hit = underway()[0]
    os.kill(owner(hit.directory), signal.SIGKILL)
    assert driver.wait(PATIENCE) == 0, (tmp_path / "driver.txt").read_text()
    assert all(run.directory.complete for run in runs)
    assert {name: finished()[name] for name in before} == before
    (begun,) = (tmp_path / "runs" / "beginnings").iterdir()
    assert (begun / "log.txt").read_text().count("stopped by SIGTERM") == 1
    assert "going on from" in (hit.directory.path / "log.txt").read_text()

    monkeypatch.setattr("sys.argv", ["granprune"])
    alone = parser.resolve([*hit.words, f"--run.root={tmp_path / 'alone'}"])
    make(Task(alone.words, alone.directory, 1, os.getcwd()))
    assert hit.directory.metrics.read_bytes() == alone.directory.metrics.read_bytes()
    results = [json.loads(directory.result.read_text()) for directory in (hit.directory, alone.directory)]
    assert results[0]["masks_sha256"] == results[1]["masks_sha256"]
    assert results[0]["rounds"] == results[1]["rounds"]


def test_refused_run_does_not_stop_the_others(tmp_path: Path) -> None:
    file = study_file(tmp_path, axes={"model.network.init_args.in_features": [64, 65]}, retries=5)
    assert start(file, tmp_path / "driver.txt").wait(PATIENCE) == 1
    assert [run.directory.complete for run in runs_of(file)] == [True, False]
    said = (tmp_path / "driver.txt").read_text()
    assert "failed: granprune: error: DBSN cannot take images" in said
    assert said.count("failed:") == 1 and "1 of 2 done, 1 failed" in said


def test_embedded_ray_listens_on_loopback_only_and_has_no_dashboard() -> None:
    with cluster.connected(None, cpus=1, dashboard=False):
        import ray

        assert ray.get(ray.remote(lambda: os.getpid()).remote()) != os.getpid()
        addresses = {address.split(":")[0] for address in listening(os.getpid())}
        assert ray.worker.global_worker.node.webui_url in (None, "")
    assert addresses and addresses <= LOOPBACK
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def listening(root: int) -> set[str]:
    """Addresses, as the kernel writes them, that a process and its descendants listen on."""
    sockets = {}
    for table in "tcp", "tcp6":
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                sockets[f"socket:[{words[9]}]"] = words[1]
    found = set()
    for pid in descendants(root):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(descriptor)
            except FileNotFoundError:
                continue
            found |= {sockets[target]} if target in sockets else set()
    return found


def descendants(root: int) -> set[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return family
