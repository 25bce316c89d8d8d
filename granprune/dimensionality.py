"""How many dimensions a layer's activations really span.

With lambda the eigenvalues of the covariance C of a layer's activations over a data set, the
effective dimensionality is (sum lambda)^2 / sum lambda^2. No eigenvalue is needed: it equals
tr(C)^2 / ||C||^2 in the Frobenius norm, and the samples' Gram matrix has the same trace and norm.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from rich.progress import Progress
from torch import Tensor

from granprune.criteria.base import Batches
from granprune.errors import UserError
from granprune.masking import MaskedModel, evaluating

BLOCK = 1024  # rows of a Gram or covariance matrix computed at once
MEMORY = 11 * 2**27  # bytes held at once over all layers, unless a single layer needs more


@dataclass(frozen=True)
class Dimensionality:
    """Dimensions of one layer's activations.

    Args:
        effective: How many dimensions they span; 0 if they never vary.
        actual: How many they have: units times positions, pruned ones included.
    """

    effective: float
    actual: int


def dimensionality(
    model: MaskedModel, batches: Batches, layers: Collection[str] | None = None
) -> dict[str, Dimensionality]:
    """Measure effective dimensionality (Heyman & Zylberberg, 2024), in evaluation mode.

    A layer's activations are what its `activation` module puts out, its gate included. Products are
    taken in float32 and added up in float64. With N samples of D features, a layer takes 4 N D or
    8 D^2 bytes, whichever is less; the network runs over the data anew for each set of layers that
    `MEMORY` has room for.

    Args:
        model: The masked network.
        batches: The data set, in any order but with the same samples whenever it is iterated over.
        layers: Names of layers that have an activation. By default those that the paper reports:
            the stem and block outputs of a residual network, the hidden layers of others.

    Returns:
        Layer name -> dimensionality, in forward order.

    Raises:
        UserError: There is no such layer, or no image.
    """
    activations = _activations(model, layers)
    found: dict[str, Dimensionality] = {}
    with Progress(transient=True) as bar, torch.no_grad(), evaluating(model):
        samples = sum(len(images) for images, _ in batches)
        features = _features(model, batches, activations)
        for names in _passes(samples, features):
            spreads = {name: _spread(samples, features[name]) for name in names}
            with _watching(model, {activations[name]: spreads[name].add for name in names}):
                for images, _ in bar.track(batches, description=f"Observing {', '.join(names)}"):
                    model(images)
            for name in names:
                effective = spreads.pop(name).effective(bar)
                found[name] = Dimensionality(effective, features[name])
    return {name: found[name] for name in activations}


class _Spread(ABC):
    """Sums over the samples of one layer that its dimensionality follows from."""

    def __init__(self, samples: int, features: int) -> None:
        self.samples = samples
        self.features = features
        self.count = 0

    def add(self, x: Tensor) -> None:
        """Take in the activations (B, units, ...) of a batch."""
        self.count += len(x)
        if self.count <= self.samples:
            self._add(x.flatten(1).float())

    def effective(self, bar: Progress) -> float:
        """tr(C)^2 / ||C||^2 from the upper triangle; a factor on C does not matter."""
        if self.count != self.samples:
            raise UserError(
                f"dimensionality saw {self.samples} samples, then {self.count}: batches must give the "
                "same samples whenever they are iterated over, and activations run once a sample"
            )
        trace = square = 0.0
        for block in bar.track(self._rows(), description="Multiplying"):
            trace += float(block.diagonal().double().sum())
            square += 2 * _square(block) - _square(block[:, : len(block)])
        return trace**2 / square if square else 0.0

    @abstractmethod
    def _add(self, x: Tensor) -> None:
        """Take in a flat batch (B, features)."""

    @abstractmethod
    def _rows(self) -> Iterable[Tensor]:
        """Rows i to i + BLOCK, columns from i on, of a matrix with C's trace and norm but for a factor."""


class _Samples(_Spread):
    """Holds the samples, and takes the smaller of their Gram matrix and their covariance."""

    def _add(self, x: Tensor) -> None:
        if self.count == len(x):
            self.x = x.new_empty(self.samples, self.features)
            self.sum = x.new_zeros(self.features, dtype=torch.float64)
        self.x[self.count - len(x) : self.count] = x
        self.sum += x.double().sum(0)

    def _rows(self) -> Iterator[Tensor]:
        self.x -= (self.sum / self.count).to(self.x.dtype)  # a float64 mean would copy x to float64
        x = self.x if self.samples < self.features else self.x.T
        for i in range(0, len(x), BLOCK):
            yield x[i : i + BLOCK] @ x[i:].T


class _Covariance(_Spread):
    """Holds the upper triangle of the covariance, whatever the number of samples."""

    def _add(self, x: Tensor) -> None:
        if self.count == len(x):
            self.shift = x.double().mean(0)  # near the mean, so that little cancels at the end
            self.products = x.new_zeros(self.features, self.features, dtype=torch.float64)
            self.sum = x.new_zeros(self.features, dtype=torch.float64)
        x = x - self.shift.float()
        self.sum += x.double().sum(0)
        for i in range(0, self.features, BLOCK):
            self.products[i : i + BLOCK, i:] += x[:, i : i + BLOCK].T @ x[:, i:]

    def _rows(self) -> Iterator[Tensor]:
        for i in range(0, self.features, BLOCK):
            means = torch.outer(self.sum[i : i + BLOCK], self.sum[i:] / self.count)
            yield self.products[i : i + BLOCK, i:] - means


def _spread(samples: int, features: int) -> _Spread:
    """What takes the least memory."""
    return (_Samples if samples <= 2 * features else _Covariance)(samples, features)


def _bytes(samples: int, features: int) -> int:
    """What a layer holds: float32 samples or a float64 covariance."""
    return min(4 * samples * features, 8 * features**2)


def _square(block: Tensor) -> float:
    return float(block.double().square().sum())


def _activations(model: MaskedModel, layers: Collection[str] | None) -> dict[str, str]:
    """Layer name -> the module to watch."""
    possible = {layer.name: layer for layer in model.network.prunable_layers() if layer.activation}
    if layers is None:
        layers = [name for name, layer in possible.items() if layer.role != "inner"]
    for name in layers:
        if name not in possible:
            raise UserError(f"no layer {name!r} with an activation; there are {', '.join(possible)}")
    return {name: layer.activation or "" for name, layer in possible.items() if name in layers}


def _features(model: MaskedModel, batches: Batches, activations: Mapping[str, str]) -> dict[str, int]:
    """How many numbers each layer puts out for an image."""
    found: dict[str, int] = {}
    watchers = {
        module: lambda x, name=name: found.__setitem__(name, x[0].numel())
        for name, module in activations.items()
    }
    with _watching(model, watchers):
        for images, _ in batches:
            model(images[:1])
            return found
    raise UserError("dimensionality needs images, and there are none")


def _passes(samples: int, features: Mapping[str, int]) -> list[list[str]]:
    """Split the layers so that what each pass holds fits into MEMORY (first fit)."""
    passes: list[list[str]] = []
    room: list[int] = []
    for name, size in features.items():
        needed = _bytes(samples, size)
        fitting = [i for i, left in enumerate(room) if needed <= left]
        if not fitting:
            fitting = [len(passes)]
            passes.append([])
            room.append(MEMORY)
        passes[fitting[0]].append(name)
        room[fitting[0]] -= needed
    return passes


@contextmanager
def _watching(model: MaskedModel, watchers: Mapping[str, Callable[[Tensor], None]]) -> Iterator[None]:
    """Within the block, each forward pass hands modules' outputs to their watchers."""

    def hook(watch: Callable[[Tensor], None]) -> Callable[..., None]:
        return lambda module, inputs, output: watch(output)

    handles = [
        model.network.get_submodule(name).register_forward_hook(hook(watch))
        for name, watch in watchers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
