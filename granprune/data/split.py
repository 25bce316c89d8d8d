"""Labelled images in memory, and how they become the input of a network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from granprune.data.augment import Augmentation, Draws
from granprune.errors import UserError
from granprune.seeding import seeded

Batch = tuple[Tensor, Tensor]  # float32 images (B, C, H, W), int64 labels (B,)


class Normalise:
    """Pixels 0..255 to float32, (pixel / 255 - mean) / std per channel; colour comes out channels-last.

    Args:
        mean: Mean of each channel, on the scale 0..1.
        std: Standard deviation of each channel, on the scale 0..1.
        device: Where the images are.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        self.mean = torch.tensor(mean, device=device).view(-1, 1, 1) * 255
        self.std = torch.tensor(std, device=device).view(-1, 1, 1) * 255

    def __call__(self, images: Tensor) -> Tensor:  # (B, C, H, W)
        images = images.to(torch.float32, copy=True).sub_(self.mean).div_(self.std)
        # Last, since per-channel arithmetic is an order of magnitude faster on planes.
        return images.contiguous(memory_format=torch.channels_last) if images.shape[1] > 1 else images


@dataclass(frozen=True)
class Split:
    """One part of a data set.

    Args:
        images: uint8, (N, C, H, W).
        labels: int64, (N,), on the same device.
        normalise: Makes pixels the input of a network.
        augmentation: What `draw` draws for; None leaves the images as they are.
    """

    images: Tensor
    labels: Tensor
    normalise: Normalise
    augmentation: Augmentation | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: Tensor) -> "Split":
        """The samples at `index`."""
        return replace(self, images=self.images[index], labels=self.labels[index])

    def draw(self, index: Tensor, generator: torch.Generator) -> Draws:
        """The random numbers that augment the samples at `index`; none without an augmentation."""
        return self.augmentation.draw(self.labels[index], generator) if self.augmentation else ()

    def batch(self, index: Tensor, draws: Draws = ()) -> Batch:
        """The samples at `index` as network input, augmented if there are draws."""
        images = self.images[index]
        if self.augmentation and draws:
            images = self.augmentation.apply(images, draws)
        return self.normalise(images), self.labels[index]


def hold_out(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Divide a split at random into what remains and the `fraction` held out, each in the original order.

    Raises:
        UserError: One of them would be empty.
    """
    count = round(fraction * len(split))
    if not 0 < count < len(split):
        raise UserError(
            f"data.validation_fraction {fraction} holds out {count} of {len(split)} training images; "
            "neither part may be empty"
        )
    order = torch.randperm(len(split), generator=seeded("validation", seed)).to(split.labels.device)
    return split.subset(order[count:].sort().values), split.subset(order[:count].sort().values)
