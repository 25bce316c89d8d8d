"""From masks to speed: pruned networks that are really smaller and faster."""

from granprune.deploy.compact import compact
from granprune.deploy.export import export_dense, export_onnx, export_prune
from granprune.deploy.network import SparseNetwork
from granprune.deploy.storage import load, save
from granprune.native import CompilerMissing

__all__ = [
    "CompilerMissing",
    "SparseNetwork",
    "compact",
    "export_dense",
    "export_onnx",
    "export_prune",
    "load",
    "save",
]
