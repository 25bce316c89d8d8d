"""The engine's tables of one layer: which weights of which inputs make which output.

The structures mirror those at the top of engine.cpp. Distances are in floats.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from granprune.deploy.packed import Array, Packed

KINDS = ("LOAD", "SPLIT", "WEIGHTS", "COLUMNS", "DENSE", "MEAN", "STORE", "ROWS", "BITS", "MATRIX")
START, FINISH = 1, 2
GROUP = 4  # outputs that a dense table sums at once
SIDES = 3  # left, right, middle
OUTPUT = np.dtype([("target", "<i4"), ("residual", "<i4"), ("bias", "<f4")])
ITEM = np.dtype([("taps", "<i4", (4,)), ("output", "<i4"), ("part", "<i4")])
STEP = np.dtype(
    {
        "names": "kind activation channels height width source source_plane source_row target "
        "target_plane target_row items item output taps index".split(),
        "formats": ["<i4"] * 12 + ["<u8"] * 4,
    },
    align=True,
)


class Geometry(NamedTuple):
    """Where the pixels of a stack of planes are: (c, y, x) at start + c * plane + y * row + x."""

    height: int
    width: int
    row: int
    plane: int
    origin: int

    @classmethod
    def padded(cls, height: int, width: int, lanes: int) -> "Geometry":
        """Planes with a row of zeros above, below and between them.

        Rows as wide as one of the engine's tiles follow each other directly. Others have zeros between
        them, which are right of one row and left of the next one.
        """
        whole = width in (4, 8, 16, 32) and width <= 2 * lanes
        margin = 0 if whole else 8
        row = -(-width // 8) * 8 + margin if margin else width
        return cls(height, width, row, (height + 1) * row, row + margin)


@dataclass(frozen=True)
class Table:
    """The arrays that a step of the engine points to."""

    kind: str
    items: Array
    outputs: Array
    taps: Array
    index: Array


@dataclass(frozen=True)
class View:
    """A layer's weights beside the places they read.

    Args:
        weight: Of the outputs that are computed only.
        position: (inputs, k, k) places in the arena for the output pixel (0, 0), the step to a pixel left
            or right left out.
        side: (k,) for each column of a kernel: 0 for the pixel left, 1 for right, 2 for the same.
        outputs: (outputs,) records of `OUTPUT`.
        spare: A plane that may be overwritten.
    """

    weight: Packed
    position: Array
    side: Array
    outputs: Array
    spare: int

    def table(self, kind: str, block: int | None = None) -> Table:
        """The taps of one of the three ways to convolve.

        Args:
            kind: WEIGHTS, COLUMNS or DENSE.
            block: Inputs that are summed over all outputs before the next ones; None for all.
        """
        units, position, side, inputs = self.units(kind)
        blocks = inputs // block if block else 0 * inputs
        groups, count = len(units), int(blocks.max(initial=0)) + 1
        group, unit = np.nonzero(units.any(-1))
        cell = (blocks[unit] * groups + group) * SIDES + side[unit]
        order = np.argsort(cell, kind="stable")
        taps = np.zeros(len(order), tap(units.shape[-1]))
        taps["offset"], taps["weight"] = position[unit[order]], units[group[order], unit[order]]
        counts = np.bincount(cell, minlength=count * groups * SIDES).reshape(-1, SIDES)
        items, outputs = _items(counts, groups, count), self.outputs
        if block is None:  # equal lengths in a row: the processor guesses where the loop ends
            items = items[np.argsort(counts.sum(1), kind="stable")]
        if kind == "DENSE":
            items["output"] *= GROUP
            unused = np.array([(self.spare, -1, 0)] * (groups * GROUP - len(outputs)), OUTPUT)
            outputs = np.concatenate([outputs, unused])
        return Table(kind, items, outputs, taps, _NONE)

    def units(self, kind: str) -> tuple[Array, Array, Array, Array]:
        """What one tap of a table holds: (groups, units, weights), and each unit's place, side and input."""
        inputs = np.broadcast_to(np.arange(self.weight.shape[1])[:, None, None], self.position.shape)
        side = np.broadcast_to(self.side, self.position.shape)
        if kind == "COLUMNS":
            columns = self.weight.dense().transpose(0, 1, 3, 2)
            units = columns.reshape(len(columns), inputs[:, 0].size, columns.shape[3])
            return units, self.position[:, 0].reshape(-1), side[:, 0].reshape(-1), inputs[:, 0].reshape(-1)
        rows, size = len(self.outputs), self.position.size
        flat = self.weight.dense().reshape(rows, size)
        members = GROUP if kind == "DENSE" else 1
        flat = np.concatenate([flat, np.zeros((-rows % members, size), flat.dtype)])
        units = flat.reshape(len(flat) // members, members, size).transpose(0, 2, 1)
        return units, self.position.reshape(-1), side.reshape(-1), inputs.reshape(-1)

    def cost(self, kind: str, slowdown: float) -> float:
        """Time of a tile of outputs in vector multiply-adds, `slowdown` being that of one of them."""
        taps = np.count_nonzero(self.units(kind)[0].any(-1))
        return slowdown * taps * {"WEIGHTS": 1, "COLUMNS": 3, "DENSE": GROUP}[kind]


def tap(weights: int) -> np.dtype:
    """The engine's `Tap<weights>`."""
    return np.dtype([("offset", "<i4"), ("weight", "<f4", (weights,))])


def vector_table(view: View, lanes: int) -> Table:
    """A table for one image of a linear network: bits, rows or a plain matrix, by density."""
    weight = view.weight
    kept = weight.kept[:, :, 0, 0]
    density = kept.mean() if kept.size else 0
    if density > (0.8 if lanes >= 8 else 0.5):
        kept[:] = True
        return Table("MATRIX", _rows(kept), view.outputs, weight.dense().reshape(-1), _NONE)
    if lanes >= 8 and density > 0.3:
        bits = np.packbits(np.pad(kept, ((0, 0), (0, -kept.shape[1] % 16))), axis=1, bitorder="little")
        return Table("BITS", _rows(kept), view.outputs, weight.padded, np.ascontiguousarray(bits.view("<u2")))
    inputs = np.broadcast_to(np.arange(kept.shape[1], dtype="<u2"), kept.shape)
    return Table("ROWS", _rows(kept), view.outputs, weight.padded, inputs[kept])


_NONE = np.zeros(0, np.uint16)


def _rows(kept: Array) -> Array:
    counts = np.zeros((len(kept), SIDES), int)
    counts[:, -1] = kept.sum(1)
    return _items(counts, len(kept), 1)


def _items(counts: Array, groups: int, blocks: int) -> Array:
    items = np.zeros(len(counts), ITEM)
    items["taps"][:, 1:] = np.cumsum(counts).reshape(-1, SIDES)
    items["taps"][1:, 0] = items["taps"][:-1, -1]
    items["output"] = np.tile(np.arange(groups), blocks)
    items["part"][:groups] |= START
    items["part"][len(items) - groups :] |= FINISH
    return items
