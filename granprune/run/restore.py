"""A finished run's network and data, built again from its directory."""

import json
from os import PathLike
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from granprune.classifier import Classifier
from granprune.cli import ExplainingParser
from granprune.data import ImageDataModule
from granprune.errors import UserError
from granprune.masking import MaskedModel
from granprune.run.checkpoint import find_checkpoint
from granprune.run.checkpoint_io import load
from granprune.run.directory import RunDirectory


def restore(run: str | PathLike[str], data_dir: str | None = None) -> tuple[MaskedModel, ImageDataModule]:
    """The masked network of a run as its newest checkpoint has it, and its data, which is not loaded yet.

    Args:
        run: Its directory.
        data_dir: Folder of the data set, if it is not where the run found it.

    Returns:
        The network in evaluation mode, on the CPU, and the data.

    Raises:
        UserError: The directory holds no run, or one whose classes are not to be had.
    """
    settings = _settings(RunDirectory(Path(run)))
    if data_dir is not None:
        settings["data"]["init_args"]["data_dir"] = data_dir
    parser = _parser()
    built = parser.instantiate_classes(parser.parse_object(settings))
    classifier: Classifier = built.model
    classifier.load_state_dict(load(find_checkpoint(run))["state_dict"])
    return classifier.network.eval(), built.data


def read_result(run: str | PathLike[str]) -> dict[str, Any]:
    """What a finished run has measured.

    Raises:
        UserError: It is not finished, or no run.
    """
    directory = RunDirectory(Path(run))
    if not directory.complete:
        state = "is not finished: start its command again" if directory.config.exists() else "holds no run"
        raise UserError(f"{run} {state}; a finished run has a {directory.result.name}")
    return json.loads(directory.result.read_text())


def _settings(directory: RunDirectory) -> dict[str, Any]:
    try:
        config = yaml.safe_load(directory.config.read_text())
    except FileNotFoundError:
        raise UserError(f"{directory.path} holds no run: {directory.config.name} is missing") from None
    data = dict(config["data"])
    data["init_args"] = {**data.get("init_args", {}), "seed": config["seed_everything"]}
    return {"model": config["model"], "data": data}


def _parser() -> LightningArgumentParser:
    parser = ExplainingParser()
    parser.add_lightning_class_args(Classifier, "model")
    parser.add_lightning_class_args(ImageDataModule, "data", subclass_mode=True)
    parser.link_arguments("data.num_classes", "model.network.init_args.num_classes", apply_on="instantiate")
    return parser
