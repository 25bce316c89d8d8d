"""The small real digits that come with scikit-learn: nothing to download."""

import torch

from granprune.data.base import ImageDataModule
from granprune.data.files import Tensors
from granprune.seeding import seeded

TRAIN_IMAGES = 1440


class Digits(ImageDataModule):
    """1,797 handwritten digits of 8x8 pixels, 1,440 of them for training; they come with scikit-learn.

    The 16 grey levels are spread over 0..255. The original sequence goes writer by writer, so the split is
    random, always the same one whatever the seed. Small shifts or turns in training made results worse, so
    there are none. No file is read from or written to the folder.
    """

    name = "digits"
    num_classes = 10
    image_shape = (1, 8, 8)
    mean = (0.5,)
    std = (0.5,)
    stored = False

    def fetch(self) -> Tensors:
        """Read the images from the installed scikit-learn."""
        from sklearn.datasets import load_digits  # a slow import that only this data set needs

        images, labels = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
        images = (images * (255 / 16)).round().to(torch.uint8).view(-1, *self.image_shape)
        order = torch.randperm(len(labels), generator=seeded("digits"))
        train, test = order[:TRAIN_IMAGES], order[TRAIN_IMAGES:]
        return {
            "train_images": images[train],
            "train_labels": labels[train],
            "test_images": images[test],
            "test_labels": labels[test],
        }
