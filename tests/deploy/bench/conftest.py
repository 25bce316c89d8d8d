from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from granprune.deploy.bench import measure
from granprune.deploy.bench.libraries import Libraries
from granprune.deploy.bench.subjects import Subject
from granprune.granularity import Weights
from granprune.models import DBSN


@pytest.fixture
def one_thread():
    """The engines set the number of threads themselves."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def here(one_thread):
    """Libraries that run in this process."""
    with Libraries(lambda: ThreadPoolExecutor(1)) as libraries:
        yield libraries


@pytest.fixture
def few_engines(monkeypatch):
    monkeypatch.setattr(measure, "DENSE", ["torch eager", "sparse engine"])


@pytest.fixture
def subject(masked) -> Subject:
    model = masked(DBSN(widths=(20, 12), in_features=16), Weights(), 0.4)
    return Subject("Weights 0.4", model, torch.rand(4, 1, 4, 4), task="Digits", accuracy=0.5)
