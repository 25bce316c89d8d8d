"""The rival in training: ResNet-20 pruned and trained as most research code does it."""

from collections.abc import Iterator
from itertools import repeat

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from granprune.data import CIFAR10
from granprune.models import ResNet20


class Photographs(Dataset):
    """Images that are decoded, changed and normalised one at a time.

    Args:
        images: uint8, (N, C, H, W).
        labels: (N,) class indices.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(CIFAR10.mean, CIFAR10.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = Image.fromarray(np.asarray(self.images[index]))
        return self.transform(picture), self.labels[index]


class MaskedConv2d(nn.Conv2d):
    """A convolution that multiplies its weight by a mask in every forward pass."""

    mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, self.stride, self.padding)


def masked_network() -> nn.Module:
    """ResNet-20 whose 3x3 convolutions have masks of ones."""
    network = ResNet20()
    for layer in network.prunable_layers():
        convolution = network.get_submodule(layer.name)
        convolution.register_buffer("mask", torch.ones_like(convolution.weight))  # type: ignore[arg-type]
        convolution.__class__ = MaskedConv2d  # its weight and settings stay
    return network


class PlainLoop:
    """Float32, planes of pixels, two workers, momentum, weight decay, and a loss read in every step.

    Args:
        images: uint8, (N, C, H, W).
        labels: (N,) class indices.
        batch: Images of one step.
        steps: Steps of one turn.
    """

    def __init__(self, images: Tensor, labels: Tensor, batch: int, steps: int) -> None:
        self.network = masked_network()
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)
        loader = DataLoader(
            Photographs(images, labels),
            batch,
            shuffle=True,
            num_workers=2,
            multiprocessing_context="fork",  # a process that was spawned would spawn them, which takes long
        )
        self.batches = _forever(loader)
        self.steps = steps
        self.running_loss = 0.0

    def __call__(self) -> None:
        """One turn."""
        self.network.train()
        for _ in range(self.steps):
            images, labels = next(self.batches)
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.network(images), labels)
            loss.backward()
            self.optimizer.step()
            self.running_loss += loss.item()


_loops: list[PlainLoop] = []  # of this process


def prepare(images: np.ndarray, labels: np.ndarray, batch: int, steps: int) -> None:
    """Make the loop whose turns `turn` runs in this process; arguments as for `PlainLoop`, but arrays."""
    _loops[:] = [PlainLoop(torch.from_numpy(images), torch.from_numpy(labels), batch, steps)]


def turn() -> None:
    """One turn of the loop that `prepare` made."""
    _loops[0]()


def _forever(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    for epoch in repeat(loader):
        yield from epoch
