"""A whole channels run with physically smaller networks after each pruning against one without."""

import json
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.checkpoint_overhead import CONFIG, write_images
from benchmarks.fitting import fit
from benchmarks.measure import Row, alternate, faster, percent

PRUNE = CONFIG.parent / "prune" / "iterative-channels.yaml"


def channels_run(quick: bool) -> list[Row]:
    """Three rounds, layerwise, to a density of 0.25; wall time of all of it but the imports."""
    steps, batch, repeats = (2, 8, 1) if quick else (60, 128, 3)
    results: list[dict[str, Any]] = []
    with TemporaryDirectory() as folder:
        write_images(Path(folder), train=16 if quick else 1280)

        def run(shrink: str, steps: int = steps) -> None:
            directory = fit(
                Path(folder),
                (PRUNE,),
                model__shrink=shrink,
                pruning__density=0.25,
                pruning__schedule__init_args__rounds=3,
                pruning__schedule__init_args__steps=steps,
                data__batch_size=batch,
            )
            results.append(json.loads((directory / "result.json").read_text()))

        run("true", steps=1)  # what a process does only once
        pairs = alternate(lambda: run("true"), lambda: run("false"), repeats)
    rounds = results[-1]["rounds"]
    left = statistics.mean(record["macs"] / record["dense_macs"] for record in rounds)
    floor = left * statistics.median(pairs.rival)
    note = (
        f"{len(rounds)} trainings of {steps} steps; floor: the rival's time by the {percent(left)} of "
        f"multiply-adds that are left over all rounds"
    )
    return [faster("channels-run", "s", pairs, 1.7, floor, note)]
