"""Another run's masks, as they are or shuffled: the ablations of pruning at initialization."""

from os import PathLike

import torch

from granprune.criteria.base import Batches, Criterion, Scores
from granprune.masking import MaskedModel


class FromRun(Criterion):
    """Score 1 for what another run kept and 0 for what it pruned.

    With `--pruning.scope LayerMatched` of the same run and schedule `AtInit`, its masks are taken
    as they are. The network starts from this run's own seed: the other run's seed repeats its
    initialization, another seed is the random-reinitialization ablation.

    Args:
        run: The other run: its directory or one of its checkpoints.
        shuffle: Permute each layer's mask at random.
    """

    def __init__(self, run: str | PathLike[str], shuffle: bool = False) -> None:
        self.run = run
        self.shuffle = shuffle

    def __call__(self, model: MaskedModel, batches: Batches, generator: torch.Generator) -> Scores:
        masks = self._load(model)
        if self.shuffle:
            masks = {name: _shuffled(mask, generator) for name, mask in masks.items()}
        device = next(iter(model.masks.values())).device
        return {name: mask.float().to(device) for name, mask in masks.items()}

    def check(self, model: MaskedModel) -> None:
        self._load(model)

    def _load(self, model: MaskedModel) -> dict[str, torch.Tensor]:
        from granprune.run.checkpoint import load_masks

        return load_masks(self.run, like=model.masks)


def _shuffled(mask: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return mask.flatten()[torch.randperm(mask.numel(), generator=generator)].view_as(mask)
