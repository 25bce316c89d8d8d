"""Size of weight times gradient (Blalock et al., 2020)."""

import torch
from jsonargparse.typing import PositiveInt

from granprune.criteria.base import Batches, Criterion, Scores, first_samples
from granprune.criteria.weight_gradients import weight_gradients
from granprune.masking import MaskedModel


class GradientMagnitude(Criterion):
    """Mean of |w dL/dw| over the component, L the mean loss (Blalock et al., 2020, "gradient magnitude").

    For single weights this is SNIP's own definition. For larger components it is not: there, parts
    of opposite sign cancel in SNIP's gradient of the mask, and here they do not. Channels and nodes
    are scored by their incoming weights.

    Args:
        num_samples: How many augmented training images are used.
    """

    def __init__(self, num_samples: PositiveInt = 2000) -> None:
        self.num_samples = num_samples

    def __call__(self, model: MaskedModel, batches: Batches, generator: torch.Generator) -> Scores:
        gradients = weight_gradients(model, first_samples(batches, self.num_samples))
        return {
            name: model.granularity.mean((weight.detach() * gradients[name]).abs())
            for name, weight in model.weights().items()
        }
