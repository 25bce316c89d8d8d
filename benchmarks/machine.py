"""What this machine can do at best, measured in this process: multiply-adds and bytes per second."""

import ctypes
import math
from pathlib import Path
from threading import Thread

import torch

from benchmarks.measure import seconds
from granprune.counting import count
from granprune.granularity import Weights
from granprune.masking import MaskedModel
from granprune.models import ResNet20
from granprune.native import build, level

SOURCE = Path(__file__).with_name("multiply_adds.cpp")
SIZES = (256, 512, 1024, 2048)  # of square matrices; which is best depends on caches and cores
TURN = 2e10  # floating-point operations of one turn: about a tenth of a second


class MultiplyAdds:
    """Float32 multiply-adds in registers, one stream on each of torch's threads.

    No matrix product or convolution can have a higher rate; the libraries' products stay well below it on
    some processors.

    Args:
        work: Operations of one call, at least.

    Raises:
        CompilerMissing: There is no C++ compiler, or it fails.
    """

    def __init__(self, work: float = TURN) -> None:
        library = ctypes.CDLL(str(build(SOURCE, level())))
        self._run = library.multiply_adds
        self._run.argtypes = [ctypes.c_long, ctypes.POINTER(ctypes.c_float), ctypes.c_float]
        self._run.restype = ctypes.c_float
        self.threads = torch.get_num_threads()
        self.times = max(1, math.ceil(work / library.operations() / self.threads))
        self.operations = library.operations() * self.times * self.threads
        chains = library.chains()
        self._arguments = self.times, (ctypes.c_float * chains)(*range(chains)), 0.5

    def __call__(self) -> None:
        others = [Thread(target=self._run, args=self._arguments) for _ in range(self.threads - 1)]
        for thread in others:
            thread.start()
        self._run(*self._arguments)  # like the others, without Python's lock
        for thread in others:
            thread.join()


class Product:
    """Products of two square matrices, again and again.

    Args:
        size: Rows and columns.
        dtype: Of the numbers.
        work: Operations of one call, at least; one product is always computed.
    """

    def __init__(self, size: int, dtype: torch.dtype, work: float = TURN) -> None:
        self.a, self.b = torch.randn(2, size, size).to(dtype)
        self.out = torch.empty_like(self.a)
        self.times = max(1, round(work / (2 * size**3)))
        self.operations = 2 * size**3 * self.times

    def __call__(self) -> None:
        for _ in range(self.times):
            torch.mm(self.a, self.b, out=self.out)


def peak(quick: bool = False) -> float:
    """Float32 operations per second that the machine can compute, at best of five."""
    return _rate(MultiplyAdds(0 if quick else TURN))


def best_product(dtype: torch.dtype, quick: bool = False) -> float:
    """Operations per second of matrix products of the size that is fastest, at best of five."""
    return max(_rate(Product(size, dtype, 0 if quick else TURN)) for size in SIZES[: 1 if quick else None])


def _rate(work: MultiplyAdds | Product) -> float:
    work()  # the library's own preparations
    return work.operations / min(seconds(work) for _ in range(5))


def bytes_per_second(quick: bool = False) -> float:
    """Bytes that a copy larger than the caches reads and writes a second, at best of five."""
    source = torch.ones(2**18 if quick else 2**24)  # 64 MiB
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * source.nbytes / min(seconds(lambda: target.copy_(source)) for _ in range(5))


def step_operations(batch: int) -> float:
    """Floating-point operations of a training step of ResNet-20 on 32x32 images.

    A multiply-accumulate is two; forward and backward pass count as three forward passes.
    """
    return 3 * 2 * batch * count(MaskedModel(ResNet20(), Weights()), (3, 32, 32)).dense_macs
