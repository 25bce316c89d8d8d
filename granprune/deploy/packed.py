"""Weights of which only those that are kept take room."""

import numpy as np

Array = np.ndarray
SPARE = 16  # the engine reads whole vectors, beyond the last value


class Packed:
    """A layer's weights (outputs, inputs, k, k): the kept ones, and a bit for each that says whether it is.

    A linear layer's (outputs, inputs) are those of a 1x1 convolution.

    Args:
        kept: Which weights are kept, bool.
        values: Those, in the order of `kept`.
        padded: The same with `SPARE` zeros behind them, if there is such an array already.
    """

    def __init__(self, kept: Array, values: Array, padded: Array | None = None) -> None:
        self.shape = (*kept.shape, 1, 1) if kept.ndim == 2 else kept.shape
        self.values = values
        self._padded = padded
        self._bits = np.packbits(kept)

    @classmethod
    def of(cls, weight: Array) -> "Packed":
        """The weights that are not zero."""
        kept = weight != 0
        return cls(kept, weight[kept])

    @property
    def kept(self) -> Array:
        """Which weights are kept, bool of the weights' shape."""
        size = int(np.prod(self.shape))
        return np.unpackbits(self._bits, count=size).view(bool).reshape(self.shape)

    @property
    def padded(self) -> Array:
        """The values with `SPARE` zeros behind them."""
        return (
            np.concatenate([self.values, np.zeros(SPARE, np.float32)])
            if self._padded is None
            else self._padded
        )

    def dense(self) -> Array:
        """All weights, zero where pruned."""
        weight = np.zeros(self.shape, np.float32)
        weight[self.kept] = self.values
        return weight

    def scaled(self, scale: Array) -> "Packed":
        """Each output's weights times its factor; scale: (outputs,) float64."""
        kept = self.kept
        factors = np.repeat(scale, kept.sum((1, 2, 3)))
        return Packed(kept, (self.values * factors).astype(np.float32))

    def of_inputs(self, alive: Array) -> "Packed":
        """Without the weights of the other inputs, which are pruned; alive: (inputs,) bool."""
        return self if alive.all() else self._without(~alive[:, None, None])

    def of_outputs(self, alive: Array) -> "Packed":
        """The rows of some outputs only; alive: (outputs,) bool."""
        if alive.all():
            return self
        less = self._without(~alive[:, None, None, None])
        return Packed(less.kept[alive], less.values)

    def _without(self, pruned: Array) -> "Packed":
        kept = self.kept
        left = kept & ~pruned
        return Packed(left, self.values[left[kept]])
