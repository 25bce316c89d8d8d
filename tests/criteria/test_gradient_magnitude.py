import pytest
import torch
from torch.nn import functional as F

from granprune.criteria import SNIP, GradientMagnitude
from granprune.errors import UserError
from granprune.granularity import Blocks, Channels, Kernels, Nodes, Weights
from granprune.masking import MaskedModel

CASES = [
    (Weights(), "convnet"),
    (Kernels(), "convnet"),
    (Blocks(2, 4, 2, 3), "convnet"),
    (Channels(), "convnet"),
    (Weights(), "mlp"),
    (Nodes(), "mlp"),
]


@pytest.mark.parametrize("granularity, network", CASES, ids=lambda value: str(type(value).__name__))
def test_mean_size_of_weight_times_gradient(granularity, network, request):
    data = request.getfixturevalue("batches" if network == "convnet" else "flat_batches")
    network = request.getfixturevalue(network).eval()
    model = MaskedModel(network, granularity)
    images, labels = (torch.cat(parts) for parts in zip(*data, strict=True))
    F.cross_entropy(model(images), labels).backward()
    found = GradientMagnitude()(model, data, torch.Generator())
    for name, weight in model.weights().items():
        products = (weight * weight.grad).detach().abs()
        wanted = granularity.total(products) / granularity.total(torch.ones_like(products))
        torch.testing.assert_close(found[name], wanted, rtol=1e-4, atol=1e-6)


def test_by_hand(mlp):
    """Logits (0, 0) of class 1: the gradient in the logits is (1/2, -1/2), in head weights +-h/2."""
    with torch.no_grad():
        mlp.hidden.weight.copy_(torch.eye(3, 4))
        mlp.hidden.bias.zero_()
        mlp.head.weight.copy_(torch.tensor([[-1.0, 2.0, -3.0], [-1.0, 2.0, -3.0]]))
        mlp.head.bias.zero_()
    images = torch.tensor([[1.0, 2.0, 4.0, 0.0]]).view(1, 1, 2, 2)
    data = [(images, torch.tensor([1]))]
    found = GradientMagnitude()(MaskedModel(mlp, Weights()), data, torch.Generator())
    torch.testing.assert_close(found["head"], torch.tensor([[0.5, 2.0, 6.0]] * 2))


def test_single_weights_are_ranked_as_by_snips_own_definition(convnet, batches):
    model = MaskedModel(convnet.double().eval(), Weights())
    data = [(images.double(), labels) for images, labels in batches]
    snip = SNIP("batch")(model, data, torch.Generator())
    for name, score in GradientMagnitude()(model, data, torch.Generator()).items():
        torch.testing.assert_close(score, snip[name])


def test_no_data_is_refused(mlp):
    with pytest.raises(UserError, match="no training images"):
        GradientMagnitude()(MaskedModel(mlp, Weights()), [], torch.Generator())
