from hypothesis import given
from hypothesis import strategies as st

from granprune.report.labels import spread


def test_labels_that_do_not_touch_stay() -> None:
    assert spread([0.1, 0.9, 0.5], 0.1) == [0.1, 0.9, 0.5]


def test_labels_that_touch_part_around_their_middle() -> None:
    assert spread([0.5, 0.52], 0.1) == [0.46, 0.56]


def test_a_stack_that_grows_takes_in_its_neighbour() -> None:
    assert spread([0.50, 0.50, 0.56], 0.1) == [0.42, 0.52, 0.62]


@given(st.lists(st.floats(0, 1), max_size=8))
def test_neighbours_keep_their_distance_and_order(heights: list[float]) -> None:
    placed = spread(heights, 0.1)
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    assert all(placed[b] - placed[a] >= 0.1 - 1e-6 for a, b in zip(order, order[1:], strict=False))
