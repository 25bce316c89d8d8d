"""MNIST: 28x28 handwritten digits (LeCun et al., 1998)."""

from pathlib import Path

from granprune.data import files
from granprune.data.augment import RotateStretch
from granprune.data.base import ImageDataModule
from granprune.data.files import Tensors


class MNIST(ImageDataModule):
    """60,000 training and 10,000 test digits, rotated and stretched in training.

    Rotation by up to 15 degrees (7.5 for the digits 1 and 7) and stretching by up to 20 % are the paper's,
    as is the normalisation to -1..1.
    """

    name = "mnist"
    num_classes = 10
    image_shape = (1, 28, 28)
    mean = (0.5,)
    std = (0.5,)
    augmentation = RotateStretch(degrees=15, stretch=0.2, upright=(1, 7))
    official_files = "MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte"

    def fetch(self) -> Tensors:
        """Read the official files, downloaded if need be."""
        return files.official("MNIST", Path(self.data_dir))
