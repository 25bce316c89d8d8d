"""Networks with random masks and with batch statistics that matter."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from granprune.granularity import Granularity
from granprune.masking import MaskedModel
from granprune.models import Prunable


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def masked() -> Callable[..., MaskedModel]:
    """Builds a masked model: network, granularity, density, seed."""

    def build(network: Prunable, granularity: Granularity, density: float, seed: int = 0) -> MaskedModel:
        generator = torch.Generator().manual_seed(seed)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in module.weight.data, module.bias.data, module.running_mean:
                    tensor.uniform_(-0.5, 1, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
            if isinstance(module, nn.Linear):
                module.bias.data.uniform_(-0.5, 0.5, generator=generator)
        model = MaskedModel(network, granularity).eval()
        model.set_masks(
            {k: torch.rand(m.shape, generator=generator) < density for k, m in model.masks.items()}
        )
        return model.to(memory_format=torch.channels_last)  # as runs have it

    return build
