import pytest
import torch
from torch.nn import functional as F

from granprune.criteria import Inverted, MovementSum
from granprune.errors import UserError
from granprune.granularity import Blocks, Channels, Kernels, Nodes, Weights
from granprune.masking import MaskedModel
from granprune.models import ResNet20


def train(model, criterion, batches, rate=0.01):
    """Plain gradient descent, observed; the products w dL/dw of each step, by layer."""
    products = []
    for images, labels in batches:
        model.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        criterion.observe(model)
        weights = model.weights()
        products.append({name: (w * w.grad).detach().clone() for name, w in weights.items()})
        with torch.no_grad():
            for weight in weights.values():
                weight -= rate * weight.grad
    return products


@pytest.mark.parametrize("granularity", [Weights(), Kernels(), Blocks(2, 4, 2, 3), Channels()])
def test_minus_the_sum_over_steps_and_components(granularity, convnet, batches):
    model, criterion = MaskedModel(convnet.eval(), granularity), MovementSum()
    criterion.check(model)
    model.masks["conv2"].view(-1)[::2] = False
    products = train(model, criterion, batches)
    found = criterion(model, [], torch.Generator())
    for name, score in found.items():
        wanted = -sum(granularity.total(step[name]) for step in products)
        torch.testing.assert_close(score, wanted)
        assert score.shape == model.masks[name].shape and not score.requires_grad


def test_growing_weights_score_higher_by_hand(mlp):
    model, criterion = MaskedModel(mlp, Weights()), MovementSum()
    for gradient in (2.0, 3.0):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        criterion.observe(model)
    found = criterion(model, [], torch.Generator())
    assert torch.equal(found["head"], -5 * mlp.head.parametrizations.weight.original.detach())


def test_what_is_rewound_is_forgotten(mlp, flat_batches):
    model, criterion = MaskedModel(mlp, Nodes()), Inverted(MovementSum())
    train(model, criterion, flat_batches)
    criterion.forget()
    products = train(model, criterion, flat_batches[:1])
    found = criterion(model, [], torch.Generator())
    torch.testing.assert_close(found["hidden"], products[0]["hidden"].sum(1))


def test_the_state_goes_on_in_another_process(mlp, flat_batches, tmp_path):
    model, whole = MaskedModel(mlp, Weights()), Inverted(MovementSum())
    train(model, whole, flat_batches)
    torch.save(whole.state_dict(), tmp_path / "state")
    other = Inverted(MovementSum())
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    for criterion in (whole, other):
        train(model, criterion, flat_batches[:1], rate=0)
    found, wanted = (criterion(model, [], torch.Generator()) for criterion in (other, whole))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_before_any_training_it_is_refused(mlp):
    with pytest.raises(UserError, match="MovementSum has seen no training: prune after some"):
        MovementSum()(MaskedModel(mlp, Weights()), [], torch.Generator())


@pytest.mark.parametrize("granularity", [Channels(), Blocks(1, "full", "full", "full")])
def test_whole_filters_before_normalisation_do_not_move_and_are_refused(granularity):
    model = MaskedModel(ResNet20(width=2), granularity)
    with pytest.raises(UserError, match="cannot score whole filters, as of layer conv: before batch"):
        MovementSum().check(model)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    criterion = MovementSum()
    train(model.train(), criterion, [(images, torch.arange(4))])
    assert criterion.sums["conv"].abs().max() < 1e-4  # why: the length of a filter does not matter
