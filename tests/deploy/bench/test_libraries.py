import os

import pytest
import torch

from granprune.deploy.bench import libraries
from granprune.deploy.bench.forms import ENGINES, Engine
from granprune.deploy.bench.libraries import Libraries, Unavailable, build, forget, measure
from granprune.deploy.storage import save


def test_builds_once_and_times_often(subject, tmp_path, one_thread):
    save(subject.model, tmp_path)
    outputs = build("x", tmp_path, "pruned", "sparse engine", subject.images.numpy(), 1)
    assert torch.allclose(torch.from_numpy(outputs), subject.model(subject.images), atol=1e-5)
    assert measure("x", 0.001) > 0
    forget()
    with pytest.raises(KeyError):
        measure("x", 0.001)


def test_what_an_engine_cannot_do_is_said(subject, tmp_path, monkeypatch):
    def fail(network, x, threads):
        raise RuntimeError("no such\n   operator")

    monkeypatch.setitem(ENGINES, "broken", Engine("torch", fail))
    save(subject.model, tmp_path)
    with pytest.raises(Unavailable, match="^no such operator$"):
        build("x", tmp_path, "dense", "broken", subject.images.numpy(), 1)


def test_the_median_is_of_calls_after_the_first(monkeypatch):
    clock = iter([0, 0, 3, 4, 10, 11, 13])  # the end is set; a call; looked at; a call; looked at
    monkeypatch.setattr(libraries, "perf_counter", lambda: next(clock))
    calls = []
    monkeypatch.setitem(libraries._calls, "x", lambda: calls.append(1))
    assert measure("x", 13) == 2  # of 3, 1
    assert len(calls) == 3


@pytest.mark.slow
def test_each_library_has_a_process_of_its_own():
    with Libraries() as processes:
        numbers = [processes.run(library, os.getpid) for library in ("torch", "openvino", "torch")]
    assert numbers[0] == numbers[2]
    assert len({*numbers, os.getpid()}) == 3
