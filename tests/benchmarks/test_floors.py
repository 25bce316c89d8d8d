"""The operations that floors are computed from."""

import ctypes
import subprocess

import pytest
import torch

from benchmarks.dimensionality import _products
from benchmarks.machine import (
    SOURCE,
    MultiplyAdds,
    Product,
    best_product,
    bytes_per_second,
    peak,
    step_operations,
)
from granprune.native import build, level


def test_a_step_is_three_forward_passes_of_multiply_adds():
    # Stem, stages 1 to 3, shortcuts, classifier; see the table of layers in He et al. (2016).
    stage = 2_359_296
    forward = 442_368 + 6 * stage + (1_179_648 + 5 * stage) * 2 + 2 * 131_072 + 640
    assert step_operations(128) == 3 * 2 * 128 * forward


def test_a_turn_of_products_counts_its_work():
    product = Product(4, torch.float32, work=1000)
    assert (product.times, product.operations) == (8, 8 * 2 * 4**3)
    product()
    assert torch.allclose(product.out, product.a @ product.b)
    assert Product(4, torch.bfloat16, work=0).times == 1


@pytest.mark.skipif(level() == "portable", reason="there are no fused multiply-adds")
def test_the_compiler_leaves_no_multiply_add_out():
    """One whose sum starts at its fixed point, 1 x 0.5 + 0.5, is easily computed beforehand."""
    library = build(SOURCE, level())
    code = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", "--disassemble=multiply_adds", library],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert code.count("vfmadd") == ctypes.CDLL(str(library)).chains() == 12


def test_bare_multiply_adds_count_those_of_all_threads():
    bare = MultiplyAdds(work=1e6)
    assert bare.threads == torch.get_num_threads()
    assert 1e6 <= bare.operations < 1.01e6 and bare.operations % bare.threads == 0
    # Twelve sums, 0 to 11 at first, become s / 2 + 1/2 each time, which brings all of them to one.
    assert [bare._run(times, *bare._arguments[1:]) for times in (0, 1, 2, 100)] == [66, 39, 25.5, 12]


def test_the_machine_does_something():
    assert peak(quick=True) > 0
    assert best_product(torch.bfloat16, quick=True) > 0
    assert bytes_per_second(quick=True) > 0


@pytest.mark.parametrize("samples, features, wanted", [(10, 4, 10 * 4 * 2), (4, 10, 4 * 10 * 2)])
def test_half_of_the_smaller_matrix_is_enough(samples, features, wanted):
    assert _products(samples, features) == wanted
