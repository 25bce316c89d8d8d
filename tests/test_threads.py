import json

import pytest
import torch

from granprune.__main__ import main
from granprune.threads import SMALL, limit_threads


@pytest.fixture
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("multiply_adds, threads", [(0, 1), (SMALL - 1, 1), (SMALL, 2)])
def test_only_small_steps_are_limited(multiply_adds, threads, two_threads):
    limit_threads(multiply_adds)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("small_step, threads", [(1e9, 1), (1, 2)])
def test_a_run_goes_by_its_batch_and_gives_the_threads_back(
    small_step, threads, two_threads, small, tmp_path, monkeypatch
):
    monkeypatch.setattr("granprune.threads.SMALL", small_step)
    assert main(["fit", f"--config={small}", f"--run.root={tmp_path}"]) == 0
    (result,) = tmp_path.glob("*/result.json")
    assert json.loads(result.read_text())["threads"] == threads
    assert torch.get_num_threads() == 2
