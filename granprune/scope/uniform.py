"""Scopes in which every group ends at the density asked for."""

from granprune.masking import MaskedModel
from granprune.pruning import Group
from granprune.scope.base import Scope


class Global(Scope):
    """All components of the network compete."""

    def groups(self, model: MaskedModel, density: float) -> list[Group]:
        return [(list(model.layers), density)]


class Layerwise(Scope):
    """Components compete within their layer; every layer gets the same density."""

    def groups(self, model: MaskedModel, density: float) -> list[Group]:
        return [([name], density) for name in model.layers]


class ByRole(Scope):
    """Components compete among layers of one role: stem, inner, outer (the paper's residual types)."""

    def groups(self, model: MaskedModel, density: float) -> list[Group]:
        by_role: dict[str, list[str]] = {}
        for name, layer in model.layers.items():
            by_role.setdefault(layer.role, []).append(name)
        return [(names, density) for names in by_role.values()]
