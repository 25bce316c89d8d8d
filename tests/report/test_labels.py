from hypothesis import given
from hypothesis import strategies as st

from granprune.report.labels import spread


def test_labels_that_do_not_touch_stay() -> None:
    assert spread([0.1, 0.9, 0.5], 0.1) == [0.1, 0.9, 0.5]


def test_labels_that_touch_part_around_their_middle() -> None:
    assert spread([0.5, 0.52], 0.1) == [0.46, 0.56]


def test_a_stack_that_grows_takes_in_its_neighbour() -> None:
    assert spread([0.50, 0.50, 0.56], 0.1) == [0.42, 0.52, 0.62]


def test_a_label_stays_within_the_axes() -> None:
    assert spread([0.0, 0.5, 1.0], 0.1) == [0.05, 0.5, 0.95]


def test_a_stack_stays_within_the_axes() -> None:
    assert spread([0.00, 0.02], 0.1) == [0.05, 0.15]
    assert spread([0.5, 0.99, 0.98], 0.1) == [0.5, 0.95, 0.85]


def test_a_stack_moved_into_the_axes_takes_in_its_neighbour() -> None:
    assert spread([0.02, 0.03, 0.17], 0.1) == [0.05, 0.15, 0.25]


def test_more_labels_than_there_is_room_for_stick_out_at_the_top() -> None:
    assert spread([0.1, 0.2, 0.3], 0.4) == [0.2, 0.6, 1.0]


@given(st.lists(st.floats(0, 1), max_size=10))
def test_neighbours_keep_their_distance_and_order(heights: list[float]) -> None:
    placed = spread(heights, 0.1)
    assert all(0.05 - 1e-6 <= height <= 0.95 + 1e-6 for height in placed)
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    assert all(placed[b] - placed[a] >= 0.1 - 1e-6 for a, b in zip(order, order[1:], strict=False))
