"""Scopes: which components are ranked together, and how dense each group ends up."""

from granprune.scope.base import Path, Scope
from granprune.scope.erdos_renyi import ER, ERK
from granprune.scope.layer_matched import LayerMatched
from granprune.scope.nm import NM
from granprune.scope.uniform import ByRole, Global, Layerwise

__all__ = ["ER", "ERK", "NM", "ByRole", "Global", "LayerMatched", "Layerwise", "Path", "Scope"]
