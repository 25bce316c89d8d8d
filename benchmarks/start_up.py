"""How soon the command line answers, and how soon a first run trains; each in new processes."""

import os
import statistics
import subprocess
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from benchmarks.measure import Pairs, Row, alternate, limited, peak_memory_of_children_mib
from granprune.errors import UserError

QUICKSTART = Path(__file__).parent.parent / "configs" / "quickstart.yaml"
# Tells the time of the first optimizer step, on the clock that all processes share, and ends.
FIRST_STEP = """
import os, sys, time
from torch.optim.optimizer import register_optimizer_step_pre_hook

def tell(*unused):
    os.write(1, f"\\nfirst step {time.monotonic()}\\n".encode())
    os._exit(0)

register_optimizer_step_pre_hook(tell)
from granprune.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def help_text(quick: bool) -> list[Row]:
    """`granprune --help`, beside an interpreter that does nothing."""
    script = Path(sysconfig.get_path("scripts")) / "granprune"
    if not script.exists():
        raise UserError(f"there is no {script}; install the project first: pip install -e .")
    pairs = alternate(
        lambda: _run([str(script), "--help"]), lambda: _run([sys.executable, "-c", ""]), 2 if quick else 15
    )
    return [_limited("help", pairs, 1.5, "an interpreter that does nothing")]


def first_step(quick: bool) -> list[Row]:
    """From the start of the process to the first optimizer step of the quick start, files in the cache."""
    pairs = Pairs()
    libraries = [sys.executable, "-c", "import torch, lightning.pytorch.cli"]
    for _ in range(1 if quick else 7):
        pairs.ours.append(_until_first_step())
        pairs.rival += alternate(lambda: _run(libraries), lambda: None, 1).ours
    return [
        _limited("start-up", pairs, 10.0, "an interpreter that imports torch and Lightning's command line")
    ]


def _limited(name: str, pairs: Pairs, at_most: float, least: str) -> Row:
    floor, peak = statistics.median(pairs.rival), peak_memory_of_children_mib()
    return limited(name, "s", pairs.ours, at_most, floor, f"floor: {least}", peak)


def _until_first_step() -> float:
    with TemporaryDirectory() as folder:
        start = monotonic()
        words = ["fit", f"--config={QUICKSTART}", f"--run.root={folder}"]
        out = _run([sys.executable, "-c", FIRST_STEP, *words], WANDB_MODE="offline")
        told = [line for line in out.splitlines() if line.startswith("first step ")]
    if not told:
        raise UserError("the quick start ended without an optimizer step")
    return float(told[0].split()[-1]) - start


def _run(words: list[str], **environment: str) -> str:
    """Standard output of a command that must succeed; its standard error is shown if it does not."""
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        raise UserError(f"{' '.join(words[:2])} ended with code {done.returncode}: {done.stderr.strip()}")
    return done.stdout
