import numpy as np
import pytest

from granprune.deploy.packed import Packed


@pytest.fixture
def weight():
    weight = np.random.default_rng(0).standard_normal((4, 5, 3, 3)).astype(np.float32)
    weight[weight < 0.5] = 0
    return weight


def test_gives_its_weights_back(weight):
    packed = Packed.of(weight)
    assert np.array_equal(packed.dense(), weight)
    assert np.array_equal(packed.kept, weight != 0)
    assert packed.values.size == np.count_nonzero(weight)


def test_scales_each_output(weight):
    scale = np.array([2.0, -1, 0.5, 3])
    assert np.allclose(Packed.of(weight).scaled(scale).dense(), weight * scale[:, None, None, None])


def test_leaves_inputs_and_outputs_out(weight):
    inputs, outputs = np.array([1, 0, 1, 1, 0], bool), np.array([0, 1, 0, 1], bool)
    assert np.array_equal(Packed.of(weight).of_inputs(inputs).dense(), weight * inputs[:, None, None])
    assert np.array_equal(Packed.of(weight).of_outputs(outputs).dense(), weight[outputs])
    assert Packed.of(weight).of_outputs(np.zeros(4, bool)).dense().shape == (0, 5, 3, 3)


def test_a_kept_weight_may_be_zero():
    packed = Packed(np.array([[True, False]]), np.zeros(1, np.float32))
    assert packed.shape == (1, 2, 1, 1)
    assert packed.dense().tolist() == [[[[0]], [[0]]]]
    assert packed.kept.any()
