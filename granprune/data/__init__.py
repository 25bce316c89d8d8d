"""Data sets: uint8 images in memory, augmented a batch at a time."""

from granprune.data.base import ImageDataModule
from granprune.data.cifar import CIFAR10, CIFAR100
from granprune.data.digits import Digits
from granprune.data.mnist import MNIST

__all__ = ["CIFAR10", "CIFAR100", "MNIST", "Digits", "ImageDataModule"]
