"""Uniform random scores: the baseline that every criterion is compared with."""

import torch

from granprune.criteria.base import Batches, Criterion, Scores
from granprune.masking import MaskedModel


class Random(Criterion):
    """Scores drawn uniformly from [0, 1), anew each round."""

    def __call__(self, model: MaskedModel, batches: Batches, generator: torch.Generator) -> Scores:
        # Drawn on the CPU, so that a GPU prunes the same components.
        return {
            name: torch.rand(mask.shape, generator=generator).to(mask.device)
            for name, mask in model.masks.items()
        }
