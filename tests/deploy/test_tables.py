import numpy as np

from granprune.deploy.packed import Packed
from granprune.deploy.tables import OUTPUT, Geometry, View, vector_table


def view(weight):
    weight = np.array(weight, np.float32)
    outputs = np.zeros(len(weight), OUTPUT)
    inputs, size = weight.shape[1], weight.shape[2]
    position = (
        100 * np.arange(inputs)[:, None, None] + 10 * np.arange(size)[:, None] + np.zeros((size, size), int)
    )
    side = {1: np.array([2]), 3: np.array([0, 2, 1])}[size]
    return View(Packed.of(weight), position, side, outputs, spare=7)


def test_taps_are_grouped_by_side():
    kernel = [[1, 2, 0], [0, 0, 3], [4, 0, 0]]
    table = view([[kernel]]).table("WEIGHTS")
    assert table.items["taps"].tolist() == [[0, 2, 3, 4]]  # two left, one right, one in the middle
    assert table.taps["weight"].ravel().tolist() == [1, 4, 3, 2]
    assert table.taps["offset"].tolist() == [0, 20, 10, 0]


def test_columns_hold_three_weights_from_the_top_one_on():
    kernel = [[1, 0, 0], [2, 0, 5], [3, 0, 0]]
    table = view([[np.zeros((3, 3)), kernel]]).table("COLUMNS")
    assert table.items["taps"].tolist() == [[0, 1, 2, 2]]
    assert table.taps["weight"].tolist() == [[1, 2, 3], [0, 5, 0]]
    assert table.taps["offset"].tolist() == [100, 100]


def test_dense_groups_are_filled_up_with_a_spare_output():
    weight = np.arange(1, 11).reshape(5, 2, 1, 1)
    weight[:4, 1] = 0
    table = view(weight).table("DENSE")
    assert table.taps["weight"].tolist() == [[1, 3, 5, 7], [9, 0, 0, 0], [10, 0, 0, 0]]
    assert table.items["output"].tolist() == [0, 4]
    assert table.outputs["target"].tolist() == [0, 0, 0, 0, 0, 7, 7, 7]


def test_blocks_of_inputs_start_once_and_finish_once():
    table = view(np.ones((2, 5, 1, 1))).table("WEIGHTS", block=2)
    assert table.items["output"].tolist() == [0, 1] * 3
    assert table.items["part"].tolist() == [1, 1, 0, 0, 2, 2]
    assert table.items["taps"][:, 3].tolist() == [2, 4, 6, 8, 9, 10]


def test_vector_formats_by_density():
    row = np.zeros((1, 20, 1, 1))
    row[0, [3, 17]] = [[[5]], [[6]]]
    sparse = vector_table(view(row), lanes=16)
    assert (sparse.kind, sparse.index.tolist(), sparse.taps[:2].tolist()) == ("ROWS", [3, 17], [5, 6])
    row[0, :10] = 1
    half = vector_table(view(row), lanes=16)
    assert (half.kind, half.index.tolist()) == ("BITS", [[0b1111111111, 0b10]])
    assert vector_table(view(row), lanes=8).kind == "BITS"
    assert vector_table(view(row), lanes=4).kind == "MATRIX"
    assert vector_table(view(np.ones((1, 20, 1, 1))), lanes=16).kind == "MATRIX"


def test_rows_of_a_tiles_width_have_no_zeros_between_them():
    assert Geometry.padded(32, 32, 16) == (32, 32, 32, 33 * 32, 32)
    assert Geometry.padded(32, 32, 8) == (32, 32, 40, 33 * 40, 48)
    assert Geometry.padded(5, 9, 16) == (5, 9, 24, 6 * 24, 32)
