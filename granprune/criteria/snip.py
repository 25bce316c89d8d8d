"""SNIP: how much the loss changes when a component is masked (Lee et al., 2019)."""

from typing import Literal

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor

from granprune.criteria.base import Batches, Criterion, Scores, first_samples
from granprune.criteria.sample_gradients import UnitGradients, WeightGradients, mask_gradients
from granprune.masking import MaskedModel


class SNIP(Criterion):
    """Magnitude of the gradient of the cross-entropy with respect to the mask.

    With g_i the gradient of sample i's loss: `per_sample` is mean |g_i|, what Heyman & Zylberberg
    (2024) describe; `batch` is |mean g_i|, SNIP's own definition; `prefix_sums` is
    sum_t |g_1 + .. + g_t|, what their released program computes, as it never clears the gradient.

    Args:
        reduction: How the samples' gradients become one score.
        num_samples: How many augmented training images are used.
    """

    def __init__(
        self,
        reduction: Literal["per_sample", "batch", "prefix_sums"] = "per_sample",
        num_samples: PositiveInt = 2000,
    ) -> None:
        self.reduction = reduction
        self.num_samples = num_samples

    def __call__(self, model: MaskedModel, batches: Batches, generator: torch.Generator) -> Scores:
        reducers = {name: _REDUCERS[self.reduction]() for name in model.layers}
        samples = 0
        for images, labels in first_samples(batches, self.num_samples):
            for name, gradients in mask_gradients(model, images, labels).items():
                reducers[name].add(gradients)
            samples += len(images)
        return {name: reducer.score(samples) for name, reducer in reducers.items()}


class _PerSample:
    def __init__(self) -> None:
        self.sum: Tensor | float = 0.0

    def add(self, gradients: UnitGradients | WeightGradients) -> None:
        self.sum = self.sum + gradients.magnitudes()

    def score(self, samples: int) -> Tensor:
        return torch.as_tensor(self.sum) / samples


class _Batch(_PerSample):
    def add(self, gradients: UnitGradients | WeightGradients) -> None:
        for chunk in gradients.chunks():
            self.sum = self.sum + chunk.sum(0)

    def score(self, samples: int) -> Tensor:
        return super().score(samples).abs()


class _PrefixSums(_PerSample):
    def __init__(self) -> None:
        super().__init__()
        self.prefix: Tensor | float = 0.0

    def add(self, gradients: UnitGradients | WeightGradients) -> None:
        for chunk in gradients.chunks():
            prefixes = self.prefix + chunk.cumsum(0)
            self.sum = self.sum + prefixes.abs().sum(0)
            self.prefix = prefixes[-1]

    def score(self, samples: int) -> Tensor:
        return torch.as_tensor(self.sum)


_REDUCERS = {"per_sample": _PerSample, "batch": _Batch, "prefix_sums": _PrefixSums}
