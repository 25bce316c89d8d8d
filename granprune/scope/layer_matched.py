"""Layer densities taken from another run."""

from os import PathLike

from granprune.masking import MaskedModel
from granprune.pruning import Group
from granprune.scope.base import Scope


class LayerMatched(Scope):
    """Every layer gets the density it has in another run; `--pruning.density` is not used.

    Args:
        run: The other run: its directory or one of its checkpoints.
    """

    def __init__(self, run: str | PathLike[str]) -> None:
        self.run = run

    def groups(self, model: MaskedModel, density: float) -> list[Group]:
        # Here, not above: only this scope reads files.
        from granprune.run.checkpoint import load_masks

        masks = load_masks(self.run, like=model.masks)
        return [([name], float(mask.double().mean())) for name, mask in masks.items()]
