"""Names beside lines: moved apart so that none covers another."""

from collections.abc import Sequence


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move heights apart until neighbours are at least `gap` from each other, each as little as need be.

    Where several would touch they are stacked around their common middle, in their order. They stay half
    a gap within 0 and 1, where the axes end; only stacks with no room there stick out, at the top.

    >>> spread([0.5, 0.5, 0.9], 0.1)
    [0.45, 0.55, 0.9]
    """
    stacks = [[i] for i in sorted(range(len(heights)), key=lambda i: heights[i])]
    while (lower := _touching(stacks, heights, gap)) is not None:
        stacks[lower] += stacks.pop(lower + 1)
    placed = [0.0] * len(heights)
    for stack in stacks:
        for index, height in zip(stack, _places(stack, heights, gap), strict=True):
            placed[index] = height
    return placed


def _touching(stacks: list[list[int]], heights: Sequence[float], gap: float) -> int | None:
    """The first stack that is too near to the one above it."""
    for lower in range(len(stacks) - 1):
        top = _places(stacks[lower], heights, gap)[-1]
        if _places(stacks[lower + 1], heights, gap)[0] - top < gap - 1e-9:
            return lower
    return None


def _places(stack: list[int], heights: Sequence[float], gap: float) -> list[float]:
    half = len(stack) * gap / 2  # half a gap of room at either end
    middle = max(half, min(1 - half, sum(heights[i] for i in stack) / len(stack)))
    return [round(middle + (k - (len(stack) - 1) / 2) * gap, 10) for k in range(len(stack))]
