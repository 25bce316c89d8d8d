"""Loaders over data in memory: they have no workers, no hidden state and no use of the global generator."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from granprune.data.split import Batch, Split
from granprune.errors import UserError
from granprune.seeding import seeded


class TrainLoader:
    """Shuffled, augmented batches that follow from the number of batches served before.

    `pos` counts the batches ever served and is the whole state: order and augmentation are functions of
    (seed, pos), so a loader whose `pos` is set goes on exactly where another stopped. Iterating
    serves what is left of the current epoch, the last batch smaller if need be, then ends; iterating again
    serves the next epoch. It never starts an epoch over: Lightning calls `iter` at its own convenience.

    With several processes each gets an equal, contiguous slice of the same global batch, augmented
    as one process would have augmented it.

    Args:
        split: What to serve.
        batch_size: Images of one batch, over all processes.
        seed: Of order and augmentation.
        rank: This process.
        world: Number of processes.

    Raises:
        UserError: A batch, or the last one of an epoch, cannot be divided evenly among the processes.
    """

    def __init__(self, split: Split, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        check_divisible(len(split), batch_size, world)
        self.split = split
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world = world
        self.pos = 0
        self._epoch_over = False
        self._order = (-1, torch.empty(0))  # epoch, its permutation

    def __len__(self) -> int:
        return math.ceil(len(self.split) / self.batch_size)

    def __iter__(self) -> "TrainLoader":
        self._epoch_over = False
        return self

    def __next__(self) -> Batch:
        if self._epoch_over:
            raise StopIteration
        epoch, batch = divmod(self.pos, len(self))
        index = self._permutation(epoch)[batch * self.batch_size : (batch + 1) * self.batch_size]
        draws = self.split.draw(index, seeded("augmentation", self.seed, self.pos))
        share = len(index) // self.world
        mine = slice(self.rank * share, (self.rank + 1) * share)
        self.pos += 1
        self._epoch_over = self.pos % len(self) == 0
        return self.split.batch(index[mine], tuple(d[mine] for d in draws))

    def state_dict(self) -> dict[str, int]:
        """The position, equal on all ranks."""
        return {"pos": self.pos}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a position."""
        self.pos = state["pos"]
        self._epoch_over = False

    def _permutation(self, epoch: int) -> Tensor:
        if self._order[0] != epoch:
            order = torch.randperm(len(self.split), generator=seeded("order", self.seed, epoch))
            self._order = epoch, order.to(self.split.labels.device)
        return self._order[1]


class EvalLoader:
    """Every image once, in order, as it is.

    Process r of w takes images r, r + w, r + 2w, ... in as many batches as the other processes, so that
    none waits for another. The batches of a process differ by at most one image; some are empty (but
    of the right shape) if there are fewer images than processes.

    Args:
        split: What to serve.
        batch_size: Images of one batch at most, over all processes.
        rank: This process.
        world: Number of processes.
    """

    def __init__(self, split: Split, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.split = split
        self.batch_size = batch_size
        self.rank = rank
        self.world = world

    def __len__(self) -> int:
        return math.ceil(len(self.split) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        mine = torch.arange(len(self.split), device=self.split.labels.device)[self.rank :: self.world]
        for index in mine.tensor_split(len(self)):
            yield self.split.batch(index)


def check_divisible(images: int, batch_size: int, world: int) -> None:
    """Check that all processes get equal shares of every batch.

    Raises:
        UserError: A batch, or the last one of an epoch, cannot be divided.
    """
    last = images % batch_size
    if images >= batch_size and batch_size % world:
        raise UserError(f"data.batch_size {batch_size} is not divisible by the {world} devices")
    if last % world:
        raise UserError(
            f"the last batch of an epoch has {last} of {images} images, which is not divisible by the "
            f"{world} devices; choose another data.batch_size or number of devices"
        )
