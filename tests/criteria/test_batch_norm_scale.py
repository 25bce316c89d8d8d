import pytest
import torch

from granprune.criteria import BatchNormScale, Inverted
from granprune.errors import UserError
from granprune.granularity import Channels, Kernels
from granprune.masking import MaskedModel
from granprune.models import ResNet20


def test_absolute_gamma_of_the_normalisation_that_follows():
    network = ResNet20(width=2)
    with torch.no_grad():
        network.bn.weight.copy_(torch.tensor([-3.0, 2.0]))
        network.blocks[4].bn2.weight.copy_(torch.tensor([1.0, -5.0, 0.0, 4.0]))
    model = MaskedModel(network, Channels())
    criterion = BatchNormScale()
    criterion.check(model)
    found = criterion(model, [], torch.Generator())
    assert found["conv"].flatten().tolist() == [3, 2]
    assert found["blocks.4.conv2"].flatten().tolist() == [1, 5, 0, 4]
    assert found.keys() == model.masks.keys()
    for name, mask in model.masks.items():
        norm = name.replace("conv", "bn")  # the naming of this network
        wanted = dict(network.named_modules())[norm].weight.abs().detach()
        assert torch.equal(found[name].flatten(), wanted) and found[name].shape == mask.shape


def test_other_granularities_are_refused():
    model = MaskedModel(ResNet20(width=2), Kernels())
    with pytest.raises(
        UserError, match="BatchNormScale cannot score granularity Kernels; it scores Channels"
    ):
        Inverted(BatchNormScale()).check(model)


def test_a_layer_without_normalisation_is_refused_by_name(convnet):
    with pytest.raises(UserError, match="no batch normalisation follows layer stem"):
        BatchNormScale().check(MaskedModel(convnet, Channels()))
