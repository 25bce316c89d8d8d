"""What a criterion is: a function from a masked network and data to scores."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from granprune.errors import UserError
from granprune.masking import MaskedModel

Scores = dict[str, Tensor]  # layer name -> float tensor of the mask's shape; higher is kept
Batches = Iterable[tuple[Tensor, Tensor]]  # images (B, C, H, W) and labels (B,)


class Criterion(ABC):
    """How much each component matters."""

    passes: int = 1
    """How many times one pruning scores and prunes, each time a little further."""

    @abstractmethod
    def __call__(self, model: MaskedModel, batches: Batches, generator: torch.Generator) -> Scores:
        """Score every component of every masked layer.

        Args:
            model: The masked network, in evaluation mode.
            batches: Augmented training images and their labels, one pass in random order; drawn
                only when iterated over.
            generator: The only source of randomness to use: it makes scores repeatable.

        Returns:
            Layer name -> scores of the mask's shape; higher is kept.
        """

    def check(self, model: MaskedModel) -> None:
        """Refuse a network or granularity that the criterion has no meaning for.

        Raises:
            UserError: With the granularities that are possible.
        """

    def observe(self, model: MaskedModel) -> None:
        """Take note of a training step: its gradients are complete, the weights have yet to move."""

    def forget(self) -> None:
        """Drop what was observed, because the training that it comes from is rewound."""

    def state_dict(self) -> dict[str, Any]:
        """What was observed, as tensors and plain values, for a checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Bring back what `state_dict` gave."""

    def refuse(self, model: MaskedModel, possible: str) -> UserError:
        """The error for a granularity that this criterion cannot score."""
        return UserError(
            f"criterion {type(self).__name__} cannot score granularity "
            f"{type(model.granularity).__name__}; it scores {possible}"
        )


def first_samples(batches: Batches, samples: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches up to that many samples, the last one cut.

    Raises:
        UserError: There is none.
    """
    left = samples
    for images, labels in batches:
        yield images[:left], labels[:left]
        left -= len(images)
        if left <= 0:
            return
    if left == samples:
        raise UserError("there are no training images to score with")
