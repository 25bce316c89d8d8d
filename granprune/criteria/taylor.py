"""First-order Taylor expansion of the loss, squared (Molchanov et al., 2019)."""

import torch
from jsonargparse.typing import PositiveInt

from granprune.criteria.base import Batches, Criterion, Scores, first_samples
from granprune.criteria.sample_gradients import mask_gradients
from granprune.masking import MaskedModel


class Taylor(Criterion):
    """Mean over samples of (dL_i/dm)^2, the squared first-order change of the loss without the component.

    For a component S of weights, dL_i/dm is the sum of w dL_i/dw over S: the joint importance of
    Molchanov et al. (2019), equation 8; for channels and nodes m is the gate that they recommend.
    They average over mini-batches; these are single samples here, so that scores do not depend on
    the batch size (Fisher pruning: Theis et al., 2018).

    Args:
        num_samples: How many augmented training images are used.
    """

    def __init__(self, num_samples: PositiveInt = 2000) -> None:
        self.num_samples = num_samples

    def __call__(self, model: MaskedModel, batches: Batches, generator: torch.Generator) -> Scores:
        sums = {name: torch.zeros_like(mask, dtype=torch.float32) for name, mask in model.masks.items()}
        samples = 0
        for images, labels in first_samples(batches, self.num_samples):
            for name, gradients in mask_gradients(model, images, labels).items():
                sums[name] = sums[name] + gradients.magnitudes(power=2)
            samples += len(images)
        return {name: total / samples for name, total in sums.items()}
