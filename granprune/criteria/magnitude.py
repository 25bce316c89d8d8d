"""Mean absolute weight (Han et al., 2015, for single weights)."""

import torch

from granprune.criteria.base import Batches, Criterion, Scores
from granprune.masking import MaskedModel


class Magnitude(Criterion):
    """Mean of |w| over the component: its weights, or for channels and nodes the incoming ones.

    Raw weights count, so incoming weights from units that are already pruned do too. The released
    program reads stale weights for kernels on a GPU; that is not reproduced.
    """

    def __call__(self, model: MaskedModel, batches: Batches, generator: torch.Generator) -> Scores:
        return {name: model.granularity.mean(w.detach().abs()) for name, w in model.weights().items()}
