"""Pruned networks in the formats of others."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import prune

from granprune.deploy.compact import compact
from granprune.deploy.storage import arguments
from granprune.errors import UserError
from granprune.granularity import Nodes, OnUnit
from granprune.masking import MaskedModel


def export_dense(model: MaskedModel, path: Path) -> None:
    """Write the plain network's state_dict as safetensors, with the masks multiplied in.

    Args:
        model: Masked by weights, kernels, blocks or nodes.
        path: The file to write.

    Raises:
        UserError: The model is masked by channels, whose masks no plain weight can express.
    """
    save_file(dense_state(model), path)


def dense_state(model: MaskedModel) -> dict[str, Tensor]:
    """The state that `export_dense` writes: loads into the unmasked network and gives the same output."""
    if isinstance(model.granularity, OnUnit) and not isinstance(model.granularity, Nodes):
        raise UserError(
            "channel masks follow the skip connections, so they do not fit into weights: compact it"
        )
    state = {key: value.cpu().contiguous().clone() for key, value in model.dense_state_dict().items()}
    for name, mask in model.weight_masks().items():
        state[f"{name}.weight"] *= mask.cpu()
    if isinstance(model.granularity, Nodes):  # a masked node's pre-activation is zero
        for name, mask in model.masks.items():
            state[f"{name}.weight"] *= mask.cpu()[:, None]
            state[f"{name}.bias"] *= mask.cpu()
    return state


def export_prune(model: MaskedModel, path: Path) -> None:
    """Write the state_dict of `prunable_copy`: `weight_orig` and `weight_mask` of each masked layer."""
    save_file(prunable_copy(model).state_dict(), path)


def prunable_copy(model: MaskedModel) -> nn.Module:
    """The plain network pruned by `torch.nn.utils.prune`, with the same masks.

    Raises:
        UserError: The masks are on channels or nodes, which that module puts on weights.
    """
    if not model.granularity.on_weight:
        kind = type(model.granularity).__name__
        raise UserError(f"torch.nn.utils.prune masks weights, not {kind}: use Weights, Kernels or Blocks")
    network = type(model.network)(**arguments(model.network))
    network.load_state_dict(model.dense_state_dict())
    for name, mask in model.weight_masks().items():
        layer: Any = network.get_submodule(name)
        prune.custom_from_mask(layer, "weight", mask.cpu().float().contiguous())
    return network


def export_onnx(model: MaskedModel, image: Tensor, path: Path) -> None:
    """Write the compact network, batch normalisation folded, as ONNX with a free batch size.

    Args:
        model: Masked by channels or nodes.
        image: One input, (1, ...), for its shape.
        path: The file to write.

    Raises:
        UserError: The packages `onnx` and `onnxscript` are missing, or the granularity is too fine.
    """
    network = compact(model, fold=True).eval()
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise UserError(f"export to ONNX needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    # Two images: a batch of one would be taken for a constant.
    example = image.expand(2, *image.shape[1:])
    batch = {0: torch.export.Dim("batch")}
    with torch.no_grad():
        torch.onnx.export(
            network, (example,), path, dynamo=True, dynamic_shapes=(batch,), external_data=False
        )
