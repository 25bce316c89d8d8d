"""Layer densities that follow from the layers' shapes."""

import torch

from granprune.masking import MaskedModel
from granprune.pruning import Group, keep_top
from granprune.scope.base import Path, Scope


class ER(Scope):
    """Components compete within their layer; wide layers end sparser (Mocanu et al., 2018).

    With a weight of shape (out, in, ...), density is proportional to (out + in) / (out * in), up to
    1; the factor is such that the network as a whole has exactly the components asked for, also on
    the way there. They are handed out one by one, to the layer that is furthest behind (Webster's
    method): so no layer ever gets one back, and one that is full leaves the rest to the others.
    """

    def groups(self, model: MaskedModel, density: float) -> list[Group]:
        shares = {
            name: self.density(weight.shape) * model.masks[name].numel()
            for name, weight in model.weights().items()
        }
        sizes = [mask.numel() for mask in model.masks.values()]
        kept = _apportion(list(shares.values()), sizes, density)
        return [([name], k / size) for name, k, size in zip(shares, kept, sizes, strict=True)]

    def groups_now(self, model: MaskedModel, density: float, path: Path) -> list[Group]:
        return self.groups(model, path(density))  # the total is on the path; layers follow from it

    def density(self, shape: torch.Size) -> float:
        """A layer's density, up to a factor that all layers share."""
        return (shape[0] + shape[1]) / (shape[0] * shape[1])


class ERK(ER):
    """Components compete within their layer; large layers end sparser (RigL: Evci et al., 2020).

    As `ER`, with a kernel's edges among the others: density is proportional to
    (out + in + height + width) / (out * in * height * width).
    """

    def density(self, shape: torch.Size) -> float:
        return sum(shape) / shape.numel()


def _apportion(shares: list[float], sizes: list[int], density: float) -> list[int]:
    """How many components each layer keeps, near-proportional to its share and no more than it has."""
    # A layer's k-th component is due when the common factor reaches (k - 1/2) / share. Ranked by a
    # stable sort, so that layers of one shape are told apart the same way at every density.
    due = [(torch.arange(size).double() + 0.5) / s for s, size in zip(shares, sizes, strict=True)]
    order = torch.cat(due).argsort(stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    return [int(kept.sum()) for kept in keep_top(-rank, density).split(sizes)]
