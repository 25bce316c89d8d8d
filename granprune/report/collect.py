"""The tidy table of a study: one row a finished run."""

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from granprune.errors import UserError
from granprune.run import identity
from granprune.run.provenance import caveat

MEASURES = ["test_accuracy", "train_accuracy", "components", "kept", "final_density"]
COSTS = ["parameters", "kept_parameters", "macs", "effective_macs", "dense_macs"]
COLUMNS = [
    *("name", "task", "network", "granularity", "criterion", "scope", "schedule", "rounds", "steps"),
    *("density", "seed", "protocol", "variant", *MEASURES, *COSTS, "dense_accuracy", "dead_layers"),
    *("component_size", "dimensions", "training_seconds", "threads", "data", "masks_sha256", "command"),
]
DENSITY_FREE = ("density", "seed", "min_components")  # of the `pruning` settings


def collect(places: Iterable[str]) -> pd.DataFrame:
    """Read runs from run directories, from folders that hold some at any depth, and from tables.

    Args:
        places: Folders, and CSV files that an earlier report left.

    Returns:
        The columns `COLUMNS`, a row a run, sorted; a run found twice counts once.

    Raises:
        UserError: There is no finished run, or a file is not what it should be.
    """
    tables = [
        _read_table(Path(place)) if Path(place).is_file() else _read_folder(Path(place)) for place in places
    ]
    tables = [table for table in tables if len(table)]
    if not tables:
        raise UserError(f"no finished run in {', '.join(places)}: none has a result.json")
    table = pd.concat(tables, ignore_index=True).drop_duplicates("name")
    order = ["task", "network", "granularity", "criterion", "scope", "schedule", "density", "seed", "name"]
    return table.sort_values(order, ignore_index=True)


def row(directory: Path) -> dict[str, Any]:
    """One finished run.

    Args:
        directory: With `result.json` and `config.yaml`, and perhaps `dimensionality.json` and the
            `command.txt` of a study.
    """
    result = json.loads((directory / "result.json").read_text())
    config = yaml.safe_load((directory / "config.yaml").read_text())
    rounds = result["rounds"]
    dense = rounds[0] if rounds[0]["density"] == 1 else {}
    return {
        **{column: result.get(column) for column in COLUMNS},
        **{cost: rounds[-1][cost] for cost in COSTS},
        "rounds": len(rounds) - 1,
        "protocol": protocol(config),
        "variant": variant(config),
        "dense_accuracy": dense.get("test_accuracy"),
        "dead_layers": len(rounds[-1]["dead_layers"]),
        "component_size": _component_size(rounds[-1]["layers"]),
        "dimensions": _dimensions(directory / "dimensionality.json"),
        "data": caveat(result.get("data", {})),
        "command": _command(directory),
    }


def protocol(config: Mapping[str, Any]) -> str:
    """Four digits that agree for runs whose accuracies can be compared: all but pruning and seed agree."""
    decisive = identity.decisive(config)
    model = {key: value for key, value in decisive["model"].items() if key != "granularity"}
    steps = config["pruning"]["schedule"]["init_args"]["steps"]
    return _digits([model, decisive["data"], decisive["trainer"], steps])


def variant(config: Mapping[str, Any]) -> str:
    """Four digits that agree for runs of one method: all of pruning agrees but density and seed."""
    pruning = identity.decisive(config)["pruning"]
    return _digits({key: value for key, value in pruning.items() if key not in DENSITY_FREE})


def _read_folder(folder: Path) -> pd.DataFrame:
    if not folder.is_dir():
        raise UserError(f"{folder} is neither a folder of runs nor a table of them")
    found = sorted(folder.rglob("result.json"))
    return pd.DataFrame([row(path.parent) for path in found], columns=COLUMNS)


def _read_table(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype={"protocol": str, "variant": str}, keep_default_na=True)
    except ValueError as error:  # of pandas' and of Unicode's errors
        raise UserError(
            f"{path} is not a table of runs: expected a folder of runs, or a runs.csv that a report wrote"
        ) from error
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise UserError(f"{path} is not a table of runs: it lacks the columns {', '.join(missing)}")
    return table[COLUMNS]


def _component_size(layers: Iterable[Mapping[str, Any]]) -> float:
    """Weights of a component, averaged over the components; for a channel or node those that read it in."""
    layers = list(layers)
    return sum(layer["parameters"] for layer in layers) / sum(layer["components"] for layer in layers)


def _dimensions(path: Path) -> float | None:
    """Effective dimensions of the activations, averaged over the layers."""
    if not path.exists():
        return None
    layers = json.loads(path.read_text())
    return sum(layer["effective"] for layer in layers.values()) / len(layers)


def _command(directory: Path) -> str:
    """The command line that made a run; by its stored configuration if it was not part of a study."""
    written = directory / "command.txt"
    if written.exists():
        return written.read_text().strip()
    return shlex.join(["granprune", "fit", "--config", f"{directory.name}/config.yaml"])


def _digits(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:4]
