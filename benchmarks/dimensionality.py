"""Effective dimensionality of ResNet-20's ten reported layers on as many images as CIFAR-10 tests on."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.checkpoint_overhead import write_images
from benchmarks.machine import peak
from benchmarks.measure import Row, limited, peak_memory_mib, seconds
from granprune.counting import count
from granprune.data import CIFAR10
from granprune.dimensionality import Dimensionality, dimensionality
from granprune.granularity import Weights
from granprune.masking import MaskedModel
from granprune.models import ResNet20


def ten_layers(quick: bool) -> list[Row]:
    """Seconds, and the most memory that the process held, once each: it takes minutes."""
    images = 20 if quick else 10_000
    torch.manual_seed(0)
    model = MaskedModel(ResNet20(width=2 if quick else 16), Weights()).to(memory_format=torch.channels_last)
    found: dict[str, Dimensionality] = {}
    with TemporaryDirectory() as folder:
        write_images(Path(folder), test=images)
        data = CIFAR10(data_dir=folder)
        data.setup()
        elapsed = seconds(lambda: found.update(dimensionality(model, data.test_dataloader())))
    memory = peak_memory_mib()
    features = [layer.actual for layer in found.values()]
    operations = 2 * (
        images * count(model, (3, 32, 32)).dense_macs + sum(_products(images, d) for d in features)
    )
    floor = operations / peak(quick)
    least = max(4 * images * min(images, d) for d in features) / 2**20
    return [
        limited(
            "dimensionality",
            "s",
            [elapsed],
            360,
            floor,
            f"{len(found)} layers, {images:,} images; floor: forward passes and the upper triangles of "
            f"{operations / 1e9:,.3g} GFLOP",
        ),
        limited(
            "dimensionality-memory",
            "MiB",
            [memory],
            3072,
            least,
            "floor: the float32 Gram matrix or samples of the largest layer",
        ),
    ]


def _products(samples: int, features: int) -> float:
    """Multiply-adds of half of the Gram matrix or of half of the covariance, whichever is less."""
    return samples * features * min(samples, features) / 2
