"""N:M sparsity: the pattern that GPUs' sparse matrix units need."""

from collections.abc import Mapping, Sequence

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor
from torch.nn import functional as F

from granprune.errors import UserError
from granprune.granularity import OnWeight
from granprune.masking import MaskedModel
from granprune.pruning import Group, keep_top, ranked
from granprune.scope.base import Scope


class NM(Scope):
    """Of every m consecutive components along a layer's inputs, n end up kept (Zhou et al., 2021).

    Each run of m is ranked on its own, so `--pruning.density` must be n/m and
    `--pruning.min_components` is not used. Where m does not divide the inputs, the shorter last run
    keeps up to n.

    Args:
        n: Components kept in each run.
        m: Length of a run; 2 of 4 is what NVIDIA's tensor cores accelerate.

    Raises:
        UserError: n is more than m.
    """

    def __init__(self, n: PositiveInt = 2, m: PositiveInt = 4) -> None:
        if n > m:
            raise UserError(f"pruning.scope.n is {n}: it must be at most pruning.scope.m, which is {m}")
        self.n = n
        self.m = m

    def groups(self, model: MaskedModel, density: float) -> list[Group]:
        if not isinstance(model.granularity, OnWeight):
            kind = type(model.granularity).__name__
            raise UserError(f"scope NM runs along a layer's inputs, which {kind} do not have; use Weights")
        if density != self.n / self.m:
            raise UserError(
                f"pruning.density is {density}, but scope NM keeps {self.n} of {self.m}: "
                f"make it {self.n / self.m}"
            )
        return [([name], density) for name in model.layers]

    def prune(
        self,
        masks: Mapping[str, Tensor],
        scores: Mapping[str, Tensor],
        groups: Sequence[Group],
        min_components: int = 0,
    ) -> dict[str, Tensor]:
        return {
            name: self._keep(ranked(name, scores[name], masks[name]), density) & masks[name]
            for names, density in groups
            for name in names
        }

    def _keep(self, scores: Tensor, density: float) -> Tensor:
        runs = scores.movedim(1, -1)  # (out, ..., in)
        inputs = runs.shape[-1]
        runs = F.pad(runs, (0, -inputs % self.m), value=-torch.inf).unflatten(-1, (-1, self.m))
        return keep_top(runs, density).flatten(-2)[..., :inputs].movedim(-1, 1)
