"""CIFAR-10 and CIFAR-100: 32x32 colour photographs (Krizhevsky, 2009)."""

from pathlib import Path

from granprune.data import files
from granprune.data.augment import CropFlip
from granprune.data.base import ImageDataModule
from granprune.data.files import Tensors


class CIFAR10(ImageDataModule):
    """50,000 training and 10,000 test photographs in 10 classes, cropped and mirrored in training.

    Normalised as in the paper; its standard deviations are the mean ones within an image, a fifth
    below those over all pixels.
    """

    name = "cifar10"
    num_classes = 10
    image_shape = (3, 32, 32)
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2023, 0.1994, 0.2010)
    augmentation = CropFlip(padding=4)
    official_files = "cifar-10-batches-py/ or cifar-10-python.tar.gz"

    def fetch(self) -> Tensors:
        """Read the official Python version, downloaded if need be."""
        return files.official("CIFAR10", Path(self.data_dir))


class CIFAR100(ImageDataModule):
    """50,000 training and 10,000 test photographs in 100 classes, cropped and mirrored in training.

    Normalised as in the paper.
    """

    name = "cifar100"
    num_classes = 100
    image_shape = (3, 32, 32)
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    augmentation = CropFlip(padding=4)
    official_files = "cifar-100-python/ or cifar-100-python.tar.gz"

    def fetch(self) -> Tensors:
        """Read the official Python version, downloaded if need be."""
        return files.official("CIFAR100", Path(self.data_dir))
