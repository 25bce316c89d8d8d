"""Making the ranks of a distributed run agree."""

import hashlib
from collections.abc import Iterable, Mapping

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from torch import Tensor

from granprune.data import ImageDataModule
from granprune.errors import UserError


def several_ranks() -> bool:
    """Whether this process is one of several."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def broadcast(tensors: Iterable[Tensor]) -> None:
    """Overwrite every rank's tensors with those of rank 0."""
    if several_ranks():
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def lost_connection(error: RuntimeError) -> bool:
    """Whether a rank fails because it no longer reaches another, most often one that has ended."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def check_devices(trainer: Trainer, data: ImageDataModule, sync_batchnorm: bool) -> None:
    """Refuse what several devices cannot do, before their processes are started.

    Raises:
        UserError: Batches cannot be divided evenly, or CPUs are to share their batch statistics.
    """
    devices = trainer.num_devices * trainer.num_nodes
    if devices == 1:
        return
    if sync_batchnorm and isinstance(trainer.accelerator, CPUAccelerator):
        raise UserError("trainer.sync_batchnorm is true, which only GPUs can do; leave it out on CPUs")
    data.prepare_data()
    data.setup("fit")
    data.check_devices(devices)


def fingerprint(masks: Mapping[str, Tensor]) -> str:
    """SHA-256 of the masks: names, shapes and bits."""
    digest = hashlib.sha256()
    for name, mask in masks.items():
        digest.update(f"{name}{tuple(mask.shape)}".encode())
        digest.update(mask.cpu().numpy().tobytes())
    return digest.hexdigest()


def check_equal(masks: Mapping[str, Tensor]) -> None:
    """Verify that all ranks hold the same masks.

    Raises:
        UserError: They differ, which no result may survive.
    """
    if not several_ranks():
        return
    number = int(fingerprint(masks)[:15], 16)
    device = next(iter(masks.values())).device
    extremes = torch.tensor([number, -number], dtype=torch.int64, device=device)
    dist.all_reduce(extremes, op=dist.ReduceOp.MAX)
    if extremes[0] != -extremes[1]:
        raise UserError("the ranks hold different masks after pruning; check the interconnect and restart")
