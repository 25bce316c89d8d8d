"""Networks: plain modules that name their prunable layers."""

from granprune.models.base import Prunable, PrunableLayer
from granprune.models.dbsn import DBSN
from granprune.models.resnet import ResNet20
from granprune.models.torchvision import Torchvision
from granprune.models.traced import Traced

__all__ = ["DBSN", "Prunable", "PrunableLayer", "ResNet20", "Torchvision", "Traced"]
