"""Hand-made runs: their files, and tables of them."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from granprune.report.collect import COLUMNS

CONFIG = {
    "seed_everything": 1,
    "trainer": {"val_check_interval": 100},
    "model": {"network": {"class_path": "x.Net"}, "granularity": {"class_path": "x.Weights"}},
    "data": {"class_path": "x.Toy", "init_args": {"batch_size": 8, "data_dir": "here"}},
    "pruning": {
        "schedule": {"class_path": "x.Iterative", "init_args": {"rounds": 1, "steps": 10}},
        "criterion": {"class_path": "x.Magnitude"},
        "scope": {"class_path": "x.Global"},
        "density": 0.5,
    },
}
GAINS = {1: 8.0, 3: 6.0, 9: 3.0, 72: 1.0}  # size of a component -> points


def table_of(*runs: dict[str, Any]) -> pd.DataFrame:
    """A table of runs; what a run does not say is as in a global magnitude run of a toy task."""
    usual = {
        **{
            "task": "Toy",
            "network": "Net",
            "granularity": "Weights",
            "criterion": "Magnitude",
            "scope": "Global",
        },
        **{"schedule": "Iterative", "rounds": 2, "steps": 300, "density": 0.5, "seed": 1, "protocol": "0000"},
        **{"variant": "1111", "test_accuracy": 0.9, "train_accuracy": 1.0, "components": 100, "kept": 50},
        **{
            "final_density": 0.5,
            "parameters": 110,
            "kept_parameters": 60,
            "macs": 1000,
            "effective_macs": 900,
        },
        **{
            "dense_macs": 2000,
            "dense_accuracy": None,
            "dead_layers": 0,
            "component_size": 1.0,
            "dimensions": None,
            "threads": 1,
        },
        **{"training_seconds": 36.0, "data": None, "masks_sha256": "ab", "command": "granprune fit --x=1"},
    }
    rows = [{"name": f"run-{i}", **usual, **run} for i, run in enumerate(runs)]
    return pd.DataFrame(rows, columns=COLUMNS)


def random(**changes: Any) -> dict[str, Any]:
    """A run of the random baseline."""
    return {"criterion": "Random", "scope": "Layerwise", "schedule": "AtInit", "rounds": 1, **changes}


def toy_study() -> pd.DataFrame:
    """Two seeds, three granularities with advantages of 4, 2 and 1 points at a random accuracy of 80 %.

    Unpruned 90 %. Random: 85 % at 1/2, 75 % at 1/4, 60 % at 1/8, the same at each granularity; seed 2 is
    one point better throughout. Magnitude: better by the advantage; inverted magnitude: worse by it.
    """
    runs = []
    for granularity, gain in ("Weights", 4.0), ("Kernels", 2.0), ("Channels", 1.0):
        for density, accuracy in (0.5, 85.0), (0.25, 75.0), (0.125, 60.0):
            for seed in 1, 2:
                here = {"granularity": granularity, "density": density, "seed": seed}
                here |= {"kept_parameters": 1000 * density, "effective_macs": 9000 * density}
                for criterion, sign in ("Random", 0), ("Magnitude", 1), ("Inverted.Magnitude", -1):
                    known = {"dense_accuracy": (89 + seed) / 100} if sign else {}
                    method = random() if criterion == "Random" else {"criterion": criterion}
                    name = f"{criterion}-{granularity}-{density}-{seed}".lower()
                    reached = (accuracy + sign * gain + seed - 1) / 100
                    runs.append({"name": name, **here, **method, **known, "test_accuracy": reached})
    return table_of(*runs)


def sizes_study(sizes=tuple(GAINS), densities=(0.25, 0.125)) -> pd.DataFrame:
    """Two seeds; random pruning reaches 50 %; the advantage is as in `GAINS`, half of it at 1/8."""
    runs = []
    for size in sizes:
        for density in densities:
            for seed in 1, 2:
                here = {
                    "granularity": f"Blocks {size}",
                    "component_size": size,
                    "density": density,
                    "seed": seed,
                }
                gain = GAINS[size] * (1 if density == 0.25 else 0.5)
                runs.append(here | random(test_accuracy=0.5))
                runs.append({**here, "test_accuracy": (50 + gain) / 100})
                runs.append({**here, "test_accuracy": 0.4, "scope": "Layerwise", "variant": "2222"})
    return table_of(*runs).assign(name=lambda t: [f"run-{i}" for i in range(len(t))])


def write_run(directory: Path, **changes: Any) -> Path:
    """Write what a finished run leaves: a toy magnitude run, but for `changes` of its result."""
    directory.mkdir(parents=True)
    layers = [{"parameters": 6, "components": 2}, {"parameters": 10, "components": 6}]
    costs = {"parameters": 9, "macs": 80, "dense_macs": 100, "layers": layers}
    rounds = [
        {
            **costs,
            "density": 1.0,
            "test_accuracy": 0.9,
            "kept_parameters": 9,
            "effective_macs": 80,
            "dead_layers": [],
        },
        {
            **costs,
            "density": 0.5,
            "test_accuracy": 0.8,
            "kept_parameters": 5,
            "effective_macs": 30,
            "dead_layers": ["a"],
        },
    ]
    result = {
        **{"name": directory.name, "task": "Toy", "network": "Net", "granularity": "Weights", "seed": 1},
        **{"criterion": "Magnitude", "scope": "Global", "schedule": "Iterative", "density": 0.5, "steps": 20},
        **{"test_accuracy": 0.8, "train_accuracy": 1.0, "components": 8, "kept": 4, "final_density": 0.5},
        **{"training_seconds": 3.0, "threads": 1, "masks_sha256": "ab", "rounds": rounds, **changes},
    }
    (directory / "result.json").write_text(json.dumps(result))
    (directory / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return directory


def write_bench(folder: Path, *rows: dict[str, Any], processor: str = "A processor") -> Path:
    """Write what `granprune bench` leaves; what a row does not say is as for a toy network of weights."""
    usual = {
        **{
            "architecture": "Net(width=2)",
            "task": "Toy",
            "data": None,
            "network": "Weights 0.5 Magnitude seed 1",
        },
        **{
            "run": "run-0",
            "granularity": "Weights",
            "criterion": "Magnitude",
            "density": 0.5,
            "accuracy": 0.9,
        },
        **{"macs": 2_000_000, "variant": "pruned", "engine": "sparse engine", "precision": "float32"},
        **{"batch": 1, "threads": 1, "milliseconds": 3.0, "low": 2.5, "high": 4.0, "over_best_dense": 1.5},
    }
    machine = {"processor": processor, "instructions": "AVX2", "cores": 2}
    whole = {"machine": machine, "missing": [], "rows": [{**usual, **row} for row in rows]}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(whole))
    return folder
