import pytest
import torch
from torch import nn
from torch.nn import functional as F

from granprune.criteria import GraSP
from granprune.granularity import Blocks, Channels, Kernels, Nodes, Weights
from granprune.masking import MaskedModel
from granprune.models import Prunable, PrunableLayer

ON_WEIGHT = [
    (Weights(), "convnet"),
    (Kernels(), "convnet"),
    (Blocks(2, 4, 2, 3), "convnet"),
    (Weights(), "mlp"),
]
ON_UNIT = [(Channels(), "convnet"), (Nodes(), "mlp")]


def case(granularity, network, request):
    data = request.getfixturevalue("batches" if network == "convnet" else "flat_batches")
    network = request.getfixturevalue(network).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.div_(5)
    return MaskedModel(network, granularity), [(images.double(), labels) for images, labels in data]


def flow(model, data, temperature):
    """The gradient of the mean loss in the masked layers' weights."""
    images, labels = (torch.cat(parts) for parts in zip(*data, strict=True))
    weights = model.weights()
    loss = F.cross_entropy(model(images) / temperature, labels)
    return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))


@pytest.mark.parametrize("granularity, network", ON_WEIGHT, ids=lambda value: str(type(value).__name__))
def test_hessian_times_gradient_by_differences_of_the_gradient(granularity, network, request, width=1e-5):
    model, data = case(granularity, network, request)
    start = flow(model, data, 3.0)
    sides = []
    for step in (width, -2 * width):
        with torch.no_grad():
            for name, weight in model.weights().items():
                weight += step * start[name]
        sides.append(flow(model, data, 3.0))
    with torch.no_grad():
        for name, weight in model.weights().items():
            weight += width * start[name]
    found = GraSP(temperature=3.0)(model, data, torch.Generator())
    for name, weight in model.weights().items():
        product = (sides[0][name] - sides[1][name]) / (2 * width)
        wanted = granularity.total(weight.detach() * product)
        torch.testing.assert_close(found[name], wanted, rtol=1e-4, atol=1e-8)
        assert wanted.abs().max() > 1e-6


@pytest.mark.parametrize("granularity, network", ON_UNIT, ids=lambda value: str(type(value).__name__))
def test_units_are_scored_by_differences_of_the_flow_in_the_mask(granularity, network, request, width=1e-5):
    model, data = case(granularity, network, request)
    found = GraSP(temperature=3.0)(model, data, torch.Generator())
    for name, mask in model.masks.items():
        for index in range(mask.numel()):
            sides = []
            for step in (width, -width):
                value = mask.double()
                value.view(-1)[index] += step
                model._mask(name).soft = value
                sides.append(sum(g.square().sum() for g in flow(model, data, 3.0).values()) / 2)
                model._mask(name).soft = None
            wanted = (sides[0] - sides[1]) / (2 * width)
            torch.testing.assert_close(found[name].flatten()[index], wanted, rtol=1e-4, atol=1e-8)


class Logit(Prunable):
    """One weight: logits (w x, 0)."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 2, bias=False)
        self.layer.weight.data.copy_(torch.tensor([[0.0], [1.0]]))

    def forward(self, x):
        return self.layer(x.flatten(1))

    def prunable_layers(self):
        return [PrunableLayer("layer")]


def test_by_hand():
    """Two classes, input x = 2, weights (0, 1), class 0, so p1 = sigmoid(2).

    dL/dw = x (p0 - 1, p1) = (-2 p1, 2 p1) and H = x^2 p0 p1 ((1, -1), (-1, 1)), so H g is
    8 p0 p1 (-2 p1, 2 p1) and w (H g) is (0, 16 p0 p1^2).
    """
    model = MaskedModel(Logit(), Weights())
    found = GraSP(temperature=1.0)(model, [(torch.tensor([[2.0]]), torch.tensor([0]))], torch.Generator())
    p = torch.sigmoid(torch.tensor(2.0)).item()
    torch.testing.assert_close(found["layer"], torch.tensor([[0.0], [16 * (1 - p) * p**2]]))


def test_batch_size_does_not_matter_and_the_model_is_left_as_it_was(request):
    model, data = case(Kernels(), "convnet", request)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images, labels = (torch.cat(parts) for parts in zip(*data, strict=True))
    together = GraSP()(model, [(images, labels)], torch.Generator())
    for name, score in GraSP()(model, data, torch.Generator()).items():
        torch.testing.assert_close(score, together[name], rtol=1e-8, atol=1e-16)
        assert not score.requires_grad
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
