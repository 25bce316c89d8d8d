"""The arithmetic of pruning: masks and scores in, masks out. No network, no Lightning."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Group = tuple[Sequence[str], float]  # layers ranked together, the density they share


def prune(
    masks: Mapping[str, Tensor],
    scores: Mapping[str, Tensor],
    groups: Sequence[Group],
    min_components: int = 0,
) -> dict[str, Tensor]:
    """Keep the best-scoring components of each group; what was pruned stays pruned.

    Args:
        masks: Layer name -> bool tensor, True = kept.
        scores: Layer name -> float tensor of the mask's shape; higher is kept.
        groups: Which layers are ranked together, and the density each group ends at.
        min_components: Components of every layer that stay whatever their score.

    Returns:
        New masks under the same names, each a subset of the old one.

    Raises:
        ValueError: A score is not a number.

    >>> masks = {"a": torch.tensor([True, True]), "b": torch.tensor([True, True])}
    >>> scores = {"a": torch.tensor([1.0, 4.0]), "b": torch.tensor([2.0, 3.0])}
    >>> prune(masks, scores, [(["a", "b"], 0.5)])
    {'a': tensor([False,  True]), 'b': tensor([False,  True])}
    """
    pruned = {name: mask.clone() for name, mask in masks.items()}
    for names, density in groups:
        flat = [ranked(name, scores[name], masks[name], min_components).flatten() for name in names]
        kept = keep_top(torch.cat(flat), density)
        for name, part in zip(names, kept.split([len(layer) for layer in flat]), strict=True):
            pruned[name] = part.view_as(masks[name]) & masks[name]
    return pruned


def keep_top(scores: Tensor, density: float) -> Tensor:
    """Mark all but the `round((1 - density) * n)` lowest of n scores (Python's half-to-even rounding).

    The count is exact also among equal scores, which `topk` breaks; a threshold would not. Infinite
    scores always stay, even if more than the density asks for. Scores of shape (..., n) are ranked
    row by row.

    >>> keep_top(torch.tensor([3.0, 1.0, 0.0, 2.0]), 0.5)
    tensor([ True, False, False,  True])
    """
    removed = round((1 - density) * scores.shape[-1])
    kept = torch.ones_like(scores, dtype=torch.bool)
    kept.scatter_(-1, scores.topk(removed, largest=False, sorted=False).indices, False)
    return kept | (scores == torch.inf)


def ranked(name: str, scores: Tensor, mask: Tensor, min_components: int = 0) -> Tensor:
    """A layer's scores in which pruned components come first and protected ones last.

    Raises:
        ValueError: A score is not a number.
    """
    if scores.isnan().any():
        raise ValueError(f"the scores of layer {name} contain NaN")
    flat = scores.detach().flatten().masked_fill(~mask.flatten(), -torch.inf)
    if min_components:
        alive = min(min_components, int(torch.count_nonzero(mask)))
        flat[flat.topk(alive).indices] = torch.inf
    return flat.view_as(mask)
