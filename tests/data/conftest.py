"""A data set whose images can be told apart: image i of a split has label i."""

from urllib.error import URLError

import pytest
import torch

from granprune.data.augment import Augmentation, CropFlip
from granprune.data.split import Normalise, Split


@pytest.fixture(autouse=True)
def one_thread():
    """Threads cost more than they save on tensors of this size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def numbered():
    """Makes a split of `count` colour images of 6x5 pixels, labelled 0, 1, 2, ..."""
    crop_flip = CropFlip(padding=2)

    def make(count: int, augmentation: Augmentation | None = crop_flip) -> Split:
        images = torch.randint(256, (count, 3, 6, 5), generator=torch.Generator().manual_seed(0))
        normalise = Normalise((0.5, 0.4, 0.3), (0.2, 0.25, 0.3), torch.device("cpu"))
        return Split(images.to(torch.uint8), torch.arange(count), normalise, augmentation)

    return make


@pytest.fixture
def offline(monkeypatch):
    """No network, wherever the test runs."""

    def refuse(*unused, **options):
        raise URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
