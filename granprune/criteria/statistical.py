"""Activation statistics (the paper's STAT): active, varied units are kept."""

from typing import Literal

import torch
from jsonargparse.typing import PositiveFloat
from torch import Tensor

from granprune.criteria.base import Batches, Criterion, Scores
from granprune.masking import MaskedModel


class Statistical(Criterion):
    """Score -alpha / (mean + 1e-8) + deviation / beta of each unit's activation.

    Mean and population deviation run over samples, separately at each position, and are averaged
    over positions (Heyman & Zylberberg, 2024). Channels and nodes only. The released
    program squares batch *sums* for the deviation, so that its scores depend on the batch size;
    `batch_sums` repeats that.

    Args:
        alpha: Weight of the mean's part.
        beta: Divisor of the deviation's part.
        deviation: `samples`: over samples, whatever the batch size; `batch_sums`: as released.
    """

    def __init__(
        self,
        alpha: float = 1.0,
        beta: PositiveFloat = 1.0,
        deviation: Literal["samples", "batch_sums"] = "samples",
    ) -> None:
        self.alpha = alpha
        self.beta = beta
        self.deviation = deviation

    @torch.no_grad()
    def __call__(self, model: MaskedModel, batches: Batches, generator: torch.Generator) -> Scores:
        moments = {name: Moments() for name in model.layers}
        with model.observe() as activations:
            for images, _ in batches:
                model(images)
                for name, moment in moments.items():
                    moment.add(activations[name].double())
        return {name: self._score(moment).view_as(model.masks[name]) for name, moment in moments.items()}

    def check(self, model: MaskedModel) -> None:
        if model.granularity.on_weight:
            raise self.refuse(model, "Channels and Nodes, whose activations it observes")

    def _score(self, moments: "Moments") -> Tensor:
        deviation = moments.deviation if self.deviation == "samples" else moments.batch_sum_deviation
        mean, spread = (m.reshape(len(m), -1).mean(1) for m in (moments.mean, deviation))  # over positions
        return (-self.alpha / (mean + 1e-8) + spread / self.beta).float()


class Moments:
    """Mean and spread over samples in one pass, batches merged by Chan et al.'s update (1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor = torch.zeros(())
        self.squares: Tensor = torch.zeros(())  # sum of squared distances from the mean
        self.batch_sums: Tensor = torch.zeros(())  # sum of squared batch sums

    def add(self, x: Tensor) -> None:
        """Take in a batch of shape (B, units, ...)."""
        mean, total = x.mean(0), self.count + len(x)
        shift = mean - self.mean.to(x.device)
        self.squares = self.squares.to(x.device) + (x - mean).square().sum(0)
        self.squares += shift.square() * (self.count * len(x) / total)
        self.mean = self.mean.to(x.device) + shift * (len(x) / total)
        self.batch_sums = self.batch_sums.to(x.device) + x.sum(0).square()
        self.count = total

    @property
    def deviation(self) -> Tensor:
        """Population standard deviation."""
        return (self.squares / self.count).sqrt()

    @property
    def batch_sum_deviation(self) -> Tensor:
        """What the released program computes: right only for batches of one sample."""
        return (self.batch_sums / self.count - self.mean.square()).clamp(min=0).sqrt()
