"""What all data sets have in common: images in memory, splits, loaders."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from jsonargparse.typing import PositiveInt, restricted_number_type
from lightning.pytorch import LightningDataModule

from granprune.data import files
from granprune.data.augment import Augmentation
from granprune.data.files import Tensors
from granprune.data.loader import EvalLoader, TrainLoader, check_divisible
from granprune.data.split import Batch, Normalise, Split, hold_out
from granprune.errors import UserError
from granprune.seeding import seeded

if TYPE_CHECKING:
    Share = float
else:
    Share = restricted_number_type("Share", float, [(">=", 0), ("<", 1)])


class ImageDataModule(LightningDataModule, ABC):
    """A labelled image data set that lives in memory and is augmented a batch at a time.

    A subclass states the class attributes below and says in `fetch` where the images come from. What it
    fetches is kept as `data_dir`/`name`.safetensors with the tensors train_images and test_images (uint8,
    (N, C, H, W)), train_labels and test_labels (int64, (N,)); a file that is already there is used.

    Args:
        data_dir: Folder of the data set. Official files that lie there are used; what is missing is
            downloaded.
        batch_size: Images of one training batch, over all devices together.
        validation_fraction: Share of the training images to hold out for validation, chosen at random by
            the seed; 0 trains on all of them.
        augment: Whether training images are changed at random as the data set prescribes.
        device: Where the images live: `auto` is the GPU if the run uses one, `cpu` is main memory, from which
            each batch is copied.
        seed: Seed of order, augmentation and the validation images.
    """

    name: str
    num_classes: int
    image_shape: tuple[int, int, int]  # channels, height, width
    mean: tuple[float, ...]  # of each channel, on the scale 0..1
    std: tuple[float, ...]
    augmentation: Augmentation | None = None
    stored: bool = True  # False: fetched anew in every run, no file is kept
    official_files: str = ""  # which of them `fetch` finds in the folder, for an error message

    def __init__(
        self,
        data_dir: str = "data",
        batch_size: PositiveInt = 128,
        validation_fraction: Share = 0.0,
        augment: bool = True,
        device: Literal["auto", "cpu"] = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.data_dir = data_dir
        self.batch_size = batch_size
        self.validation_fraction = validation_fraction
        self.augment = augment
        self.device = device
        self.seed = seed
        self.provenance: dict[str, str] = {}  # the file's own account of its source, after setup
        self._splits: dict[str, Split] = {}

    @abstractmethod
    def fetch(self) -> Tensors:
        """Get train_images, train_labels, test_images and test_labels from the original source.

        Raises:
            OSError, RuntimeError, ...: One of `files.SOURCE_ERRORS`, if the source cannot be had.
        """

    @property
    def path(self) -> Path:
        """The file that keeps the data set."""
        return Path(self.data_dir) / f"{self.name}.safetensors"

    @property
    def evaluation_names(self) -> list[str]:
        """What each loader of `val_dataloader` serves."""
        return ["validation", "test"] if self.validation_fraction else ["test"]

    def prepare_data(self) -> None:
        """Make the data file if it is missing; several runs that start at once make it once.

        Raises:
            UserError: The data cannot be had or the file not be written.
        """
        if not self.stored:
            return
        try:
            files.make(self.path, self._fetch_checked)
        except UserError:
            raise
        except files.SOURCE_ERRORS as error:
            wanted = " or ".join(filter(None, [self.path.name, self.official_files]))
            raise UserError(
                f"no {self.name} data in folder {self.data_dir}: expected {wanted}, and getting it failed "
                f"({files.first_line(error)})"
            ) from error

    def setup(self, stage: str | None = None) -> None:
        """Load the images, hold out the validation part, put all where the run computes.

        Raises:
            UserError: The data file is missing or not of the form it should have, or a split is empty.
        """
        device = torch.device("cpu")
        if self.trainer is not None and self.device == "auto":
            device = self.trainer.strategy.root_device
        if not self._splits or self._splits["test"].images.device != device:
            self._splits = self._load(device)

    def train_dataloader(self) -> TrainLoader:
        """This process's share of the shuffled, augmented training images.

        Raises:
            UserError: A batch cannot be divided evenly among the devices.
        """
        return TrainLoader(self._splits["train"], self.batch_size, self.seed, *self._rank_and_world())

    def check_devices(self, devices: int) -> None:
        """Check, after `setup`, that every training batch can be divided evenly among that many devices.

        Raises:
            UserError: One cannot.
        """
        check_divisible(len(self._splits["train"]), self.batch_size, devices)

    def val_dataloader(self) -> list[EvalLoader]:
        """This process's share of each split named by `evaluation_names`."""
        return [self._evaluation(name) for name in self.evaluation_names]

    def test_dataloader(self) -> EvalLoader:
        """This process's share of the test images."""
        return self._evaluation("test")

    def scoring_batches(self, round: int, batch_size: int = 128) -> Iterator[Batch]:
        """One pass over all training images for a pruning criterion, the same on every process.

        Order and augmentation follow from the seed and the pruning round; which images come first, and how
        they are augmented, is the same for every batch size.
        """
        split = self._splits["train"]
        generator = seeded("scoring", self.seed, round)
        order = torch.randperm(len(split), generator=generator).to(split.labels.device)
        draws = split.draw(order, generator)
        for start in range(0, len(order), batch_size):
            part = slice(start, start + batch_size)
            yield split.batch(order[part], tuple(d[part] for d in draws))

    def _fetch_checked(self) -> Tensors:
        tensors = self.fetch()
        files.check(tensors, type(self).__name__, self.image_shape, self.num_classes)
        return tensors

    def _read_checked(self) -> Tensors:
        tensors, self.provenance = files.read(self.path)
        files.check(tensors, str(self.path), self.image_shape, self.num_classes)
        return tensors

    def _load(self, device: torch.device) -> dict[str, Split]:
        tensors = self._read_checked() if self.stored else self._fetch_checked()
        normalise = Normalise(self.mean, self.std, device)

        def split(part: str, augmentation: Augmentation | None = None) -> Split:
            images, labels = tensors[f"{part}_images"], tensors[f"{part}_labels"]
            return Split(images.to(device), labels.to(device), normalise, augmentation)

        train, test = split("train", self.augmentation if self.augment else None), split("test")
        if not self.validation_fraction:
            return {"train": train, "test": test}
        train, validation = hold_out(train, self.validation_fraction, self.seed)
        return {"train": train, "validation": validation, "test": test}

    def _evaluation(self, name: str) -> EvalLoader:
        return EvalLoader(self._splits[name], self.batch_size, *self._rank_and_world())

    def _rank_and_world(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
