"""What this machine can do at best, measured in this process: multiply-adds and bytes per second."""

import torch

from benchmarks.measure import seconds
from granprune.counting import count
from granprune.granularity import Weights
from granprune.masking import MaskedModel
from granprune.models import ResNet20

SIZES = (256, 512, 1024, 2048)  # of square matrices; which is best depends on caches and cores
TURN = 2e10  # floating-point operations of one turn of `Product`: about a tenth of a second


class Product:
    """Products of two square matrices, again and again: the densest stream of multiply-adds there is.

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


def best_product(dtype: torch.dtype = torch.float32, quick: bool = False) -> tuple[Product, float]:
    """The size at which the machine multiplies fastest, and its operations per second (best of three)."""
    found = []
    for size in SIZES[: 1 if quick else None]:
        product = Product(size, dtype, 0 if quick else TURN)
        product()  # the library's own preparations
        found.append((product, product.operations / min(seconds(product) for _ in range(3))))
    return max(found, key=lambda pair: pair[1])


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
