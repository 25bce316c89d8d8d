"""A deployed network as two files: tensors and a manifest. Nothing in them is executed."""

import hashlib
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor
from torch.nn import functional as F

from granprune import __version__
from granprune.deploy.network import Masked, SparseNetwork
from granprune.deploy.packed import SPARE, Array, Packed
from granprune.errors import UserError
from granprune.granularity import GRANULARITIES, Blocks, Granularity, OnUnit, OnWeight
from granprune.masking import MaskedModel, density, raw_weight
from granprune.models import DBSN, Prunable, ResNet20
from granprune.native import CompilerMissing
from granprune.run.checkpoint_io import write_atomically
from granprune.signals import trace

TENSORS, MANIFEST = "network.safetensors", "manifest.json"
FORMAT = 3
SIDES = "outputs", "inputs"
# Of a layer: live outputs (out,), live inputs (in,), and the shape of its weight.
Units = tuple[Tensor, Tensor, torch.Size]
NETWORKS: dict[str, type[Prunable]] = {"ResNet20": ResNet20, "DBSN": DBSN}


def save(model: MaskedModel, folder: Path, **facts: Any) -> Path:
    """Write a pruned network; only the weights that are kept take room.

    Args:
        model: A ResNet20 or DBSN with its masks.
        folder: Where `network.safetensors` and `manifest.json` go; made if it is not there.
        facts: Further entries of the manifest, such as the test accuracy; plain JSON values.

    Returns:
        The path of the manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    live = _live_units(model)
    kept = model.weight_masks() | {name: _between(*units) for name, units in live.items()}
    tensors = save_tensors(_pack(model, kept, live))
    manifest = {
        "format": FORMAT,
        "network": type(model.network).__name__,
        "arguments": arguments(model.network),
        "granularity": type(model.granularity).__name__,
        "edges": model.granularity.edges if isinstance(model.granularity, Blocks) else {},
        "density": density(model.masks),
        "versions": {"granprune": __version__, "torch": torch.__version__},
        "masks": {name: list(mask.shape) for name, mask in model.masks.items()},
        "weights": {name: list(mask.shape) for name, mask in kept.items()},
        "facts": facts,
    }
    manifest["checksum"] = _checksum(manifest, hashlib.sha256(tensors))
    write_atomically(folder / TENSORS, tensors)  # a process that has loaded the old file keeps it
    path = folder / MANIFEST
    write_atomically(path, (json.dumps(manifest, indent=2) + "\n").encode())
    return path


def load(folder: str | PathLike[str]) -> SparseNetwork | Masked:
    """A deployed network, ready to be called; its `form` says how it runs.

    Its tables are built from what is stored, so that the dense network never takes up memory. Without a
    C++ compiler the masked dense network runs instead, at dense speed, and a warning says so.

    Raises:
        UserError: The files are missing, of another format, or not as they were written.
    """
    stored = Stored(*_read(Path(folder)))
    try:
        return SparseNetwork(stored)
    except CompilerMissing as problem:
        return _masked(stored.model(), problem)


def deployed(model: MaskedModel) -> SparseNetwork | Masked:
    """The model in the sparse engine, or where that cannot be built, as it is, with a warning."""
    try:
        return SparseNetwork(model)
    except CompilerMissing as problem:
        return _masked(model, problem)


def load_model(folder: Path) -> MaskedModel:
    """The masked model that `save` wrote, in evaluation mode.

    Raises:
        UserError: As for `load`.
    """
    return Stored(*_read(folder)).model()


class Stored:
    """The numbers of a stored network.

    Args:
        manifest: What it is.
        tensors: The open file: kept weights and `SPARE` zeros, masks as bits, and all else.
    """

    def __init__(self, manifest: dict[str, Any], tensors: Any) -> None:
        self._manifest = manifest
        self._tensors = tensors
        kinds: dict[str, type[Granularity]] = {kind.__name__: kind for kind in GRANULARITIES}
        self._granularity = kinds[manifest["granularity"]](**manifest["edges"])

    @cached_property
    def network(self) -> Prunable:
        """The same network one unit wide, to take up no memory."""
        arguments = self._manifest["arguments"]
        narrow = {"width": 1} if "width" in arguments else {"widths": [1] * len(arguments["widths"])}
        return NETWORKS[self._manifest["network"]](**{**arguments, **narrow})

    @cached_property
    def alive(self) -> dict[str, Array]:
        if not isinstance(self._granularity, OnUnit):
            return {}
        return {name: mask.flatten().numpy() for name, mask in self.masks().items()}

    def weight(self, name: str) -> Packed:
        values, mask = self.values(f"{name}.weight"), self.weight_mask(name)
        return Packed.of(values) if mask is None else Packed(mask.numpy(), values[:-SPARE], values)

    def values(self, key: str) -> Array:
        return self._tensor(key).numpy()

    def masks(self) -> dict[str, Tensor]:
        """The mask of each masked layer."""
        return {name: self._mask(name) for name in self._manifest["masks"]}

    def weight_mask(self, name: str) -> Tensor | None:
        """Which of a layer's weights are stored; None for all."""
        if name not in self._manifest["weights"]:
            return None
        shape = torch.Size(self._manifest["weights"][name])
        if isinstance(self._granularity, OnWeight):
            return self._granularity.expand(self._mask(name), shape)
        outputs, inputs = (
            self._bits(f"{name}.{side}", [size]) for side, size in zip(SIDES, shape, strict=False)
        )
        return _between(outputs, inputs, shape)

    def model(self) -> MaskedModel:
        """The masked model itself, in evaluation mode."""
        network = NETWORKS[self._manifest["network"]](**self._manifest["arguments"])
        model = MaskedModel(network, self._granularity)
        model.set_masks(self.masks())
        with torch.no_grad():
            for key, value in model.dense_state_dict().items():
                mask = self.weight_mask(key.removesuffix(".weight")) if key.endswith(".weight") else None
                if mask is None:
                    value.copy_(self._tensor(key))
                else:
                    value.zero_()[mask] = self._tensor(key)[:-SPARE]
        return model.eval().to(memory_format=torch.channels_last)  # as runs have it

    def _mask(self, name: str) -> Tensor:
        return self._bits(f"{name}.mask", self._manifest["masks"][name])

    def _bits(self, key: str, shape: Sequence[int]) -> Tensor:
        bits = np.unpackbits(self.values(key), count=math.prod(shape))
        return torch.from_numpy(bits.view(bool)).view(*shape)

    def _tensor(self, key: str) -> Tensor:
        """A view of the file, which the system reads in and drops as needed."""
        return self._tensors.get_tensor(key)


def _masked(model: MaskedModel, problem: CompilerMissing) -> Masked:
    warnings.warn(f"{problem}; the masked dense network runs instead", stacklevel=3)
    return Masked(model)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the manifest of a deployed network says, after the check that it is as it was written."""
    return _read(folder)[0]


def _read(folder: Path) -> tuple[dict[str, Any], Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        with open(folder / TENSORS, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
    except FileNotFoundError as problem:
        raise UserError(f"{folder} holds no deployed network: {problem.filename} is missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UserError(f"{path} is not JSON; deploy the run again") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{path} is not a manifest of format {FORMAT}; deploy the run again")
    if manifest.pop("checksum", None) != _checksum(manifest, digest):
        raise UserError(
            f"{folder} was changed after it was written: its checksum differs; deploy the run again"
        )
    try:
        return manifest, safe_open(folder / TENSORS, "pt")
    except SafetensorError as problem:
        raise UserError(f"{folder / TENSORS} cannot be read: {problem}") from None


def _checksum(manifest: dict[str, Any], tensors: Any) -> str:
    facts = json.dumps(manifest, sort_keys=True).encode()
    return hashlib.sha256(facts + tensors.digest()).hexdigest()


def arguments(network: Prunable) -> dict[str, Any]:
    """The constructor arguments of a ResNet20 or DBSN, read off its layers.

    Raises:
        UserError: The network is of another kind.
    """
    if isinstance(network, ResNet20):
        conv = network.conv
        return {
            "num_classes": network.head.out_features,
            "width": conv.out_channels,
            "in_channels": conv.in_channels,
        }
    if isinstance(network, DBSN):
        return {
            "num_classes": network.head.out_features,
            "widths": [linear.out_features for linear in network.hidden],
            "in_features": network.hidden[0].in_features,
        }
    raise UserError(f"cannot deploy {type(network).__name__}: possible are {' and '.join(NETWORKS)}")


def _pack(model: MaskedModel, kept: Mapping[str, Tensor], live: Mapping[str, Units]) -> dict[str, Tensor]:
    tensors = {key: value.cpu().contiguous() for key, value in model.dense_state_dict().items()}
    for name, mask in model.masks.items():
        tensors[f"{name}.mask"] = _as_bits(mask)
    for name, mask in kept.items():
        tensors[f"{name}.weight"] = F.pad(tensors[f"{name}.weight"][mask.cpu()], (0, SPARE))
    for name, (outputs, inputs, _) in live.items():
        for side, units in zip(SIDES, (outputs, inputs), strict=True):
            tensors[f"{name}.{side}"] = _as_bits(units)
    return tensors


def _live_units(model: MaskedModel) -> dict[str, Units]:
    """What no mask on units silences in each layer; empty where masks act on weights."""
    if not isinstance(model.granularity, OnUnit):
        return {}
    of = arguments(model.network)
    image = (of["in_channels"], 8, 8) if "in_channels" in of else (of["in_features"], 1, 1)
    layers, _ = trace(model, image, effective=False)
    return {
        name: (layer.calls[0].live_out, layer.calls[0].live_in, raw_weight(model.module(name)).shape)
        for name, layer in layers.items()
    }


def _between(outputs: Tensor, inputs: Tensor, shape: torch.Size) -> Tensor:
    """Of a weight's shape: whether it joins a live input to a live output."""
    joined = outputs[:, None] & inputs
    return joined.view(*joined.shape, *[1] * len(shape[2:])).expand(shape)


def _as_bits(mask: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(mask.cpu().numpy()))
