"""A run is its configuration: which settings decide the result, their hash and a readable name."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Trainer settings that change what is computed. All others say where and how it is watched.
DECISIVE = (
    "accumulate_grad_batches",
    "benchmark",
    "callbacks",  # which may change anything, as may plugins
    "deterministic",
    "gradient_clip_algorithm",
    "gradient_clip_val",
    "limit_test_batches",
    "limit_train_batches",
    "limit_val_batches",
    "overfit_batches",
    "plugins",
    "precision",
    "sync_batchnorm",
    "val_check_interval",
)
NEUTRAL_DATA = ("data_dir", "device")  # where the images lie


def decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved `fit` configuration that decides the result."""
    data = dict(config["data"])
    data["init_args"] = {k: v for k, v in data.get("init_args", {}).items() if k not in NEUTRAL_DATA}
    return {
        "seed_everything": config["seed_everything"],
        "model": config["model"],
        "data": data,
        "pruning": _by_run_name(config["pruning"]),
        "trainer": {key: config["trainer"].get(key) for key in DECISIVE},
    }


def fingerprint(config: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits of the decisive settings' SHA-256."""
    text = json.dumps(decisive(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def describe(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run is about, in words: one entry a column of a study's table."""
    model, pruning = config["model"], config["pruning"]
    return {
        "task": _class(config["data"]),
        "network": _class(model["network"]),
        "granularity": _sized(model["granularity"]),
        "criterion": _class(pruning["criterion"]),
        "scope": _sized(pruning["scope"]),
        "schedule": _class(pruning["schedule"]),
        "density": pruning["density"],
        "seed": config["seed_everything"],
    }


def run_name(config: Mapping[str, Any]) -> str:
    """A readable, unique name: the description and the fingerprint."""
    words = describe(config)
    about = [str(words[key]) for key in ("task", "network", "granularity", "criterion", "scope", "schedule")]
    return "-".join([*about, f"d{words['density']:g}", f"s{words['seed']}", fingerprint(config)]).lower()


def _class(spec: Any) -> str:
    """`Inverted.Magnitude` for a nested specification of classes."""
    name = str(spec["class_path"]).rsplit(".", 1)[-1]
    inner = spec.get("init_args", {}).get("criterion")
    return f"{name}.{_class(inner)}" if inner else name


def _sized(spec: Any) -> str:
    """A class with its sizes, which tell `Blocks` of one size from those of another."""
    sizes = [str(v) for k, v in (spec.get("init_args") or {}).items() if k != "run"]
    return "-".join([_class(spec), *(["x".join(sizes)] if sizes else [])])


def _by_run_name(value: Any) -> Any:
    """Other runs count by their names, which carry their own fingerprints, not by their places."""
    if not isinstance(value, Mapping):
        return value
    return {k: _without_folder(v) if k == "run" else _by_run_name(v) for k, v in value.items()}


def _without_folder(run: Any) -> str:
    path = Path(run)
    return "/".join(path.parts[-3:] if path.suffix == ".ckpt" else path.parts[-1:])
