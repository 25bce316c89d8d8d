import copy

import pytest
import torch
from torch.nn import functional as F

from granprune.criteria import SNIP
from granprune.errors import UserError
from granprune.granularity import Channels, Kernels, Nodes, Weights
from granprune.masking import MaskedModel

CASES = [
    (Weights, "convnet"),
    (Kernels, "convnet"),
    (Channels, "convnet"),
    (Weights, "mlp"),
    (Nodes, "mlp"),
]
REDUCTIONS = ["per_sample", "batch", "prefix_sums"]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[1]} {case[0].__name__}")
def case(request):
    """A half-pruned double-precision model in evaluation mode, and its data."""
    granularity, name = request.param
    network = request.getfixturevalue(name).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.div_(5)  # keeps the softmax from saturating
    model = MaskedModel(network, granularity()).eval()
    generator = torch.Generator().manual_seed(1)
    for mask in model.masks.values():
        mask.copy_(torch.rand(mask.shape, generator=generator) < 0.7)
    data = request.getfixturevalue("batches" if name == "convnet" else "flat_batches")
    return model, [(images.double(), labels) for images, labels in data]


def scores(model, data, **options):
    return SNIP(**options)(model, data, torch.Generator())


def loss(model, image, label, factors):
    """The loss of one sample with each mask multiplied by a factor, masks written out once more."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, mask in model.masks.items():
            module = model.module(name)
            if model.granularity.on_weight:
                module.parametrizations.weight.original.mul_(mask * factors[name])
                mask.fill_(True)
            else:
                gate = model.network.get_submodule(model.layers[name].gate)
                gate.register_forward_hook(lambda m, i, o, f=factors[name]: o * f)
        return F.cross_entropy(model(image[None]), label[None])


def finite_differences(model, data, name, index, width=1e-6):
    """d loss / d mask[index] of each sample at the present masks, by central differences."""
    found = []
    for images, labels in data:
        for image, label in zip(images, labels, strict=True):
            sides = []
            for step in (width, -width):
                factors = {n: torch.ones(m.shape, dtype=torch.double) for n, m in model.masks.items()}
                factors[name].view(-1)[index] += step
                sides.append(loss(model, image, label, factors))
            found.append((sides[0] - sides[1]) / (2 * width))
    return torch.stack(found)


def test_scores_are_finite_differences_of_the_loss_in_the_mask(case):
    model, data = case
    found = scores(model, data)
    for name, mask in model.masks.items():
        kept = mask.flatten().nonzero().flatten().tolist()
        for index in kept[:: max(1, len(kept) // 3)]:
            wanted = finite_differences(model, data, name, index).abs().mean()
            torch.testing.assert_close(found[name].flatten()[index], wanted, rtol=1e-5, atol=1e-7)


def one_sample_at_a_time(model, data):
    """Gradients of the masks by plain autograd, (samples, *mask.shape) of each layer."""
    rows = {name: [] for name in model.masks}
    for images, labels in data:
        for image, label in zip(images, labels, strict=True):
            soft = {n: m.double().requires_grad_() for n, m in model.masks.items()}
            for name, value in soft.items():
                model._mask(name).soft = value
            value = F.cross_entropy(model(image[None]), label[None])
            gradients = torch.autograd.grad(value, list(soft.values()))
            for name, gradient in zip(soft, gradients, strict=True):
                model._mask(name).soft = None
                rows[name].append(gradient)
    return {name: torch.stack(row) for name, row in rows.items()}


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_scores_are_those_of_one_sample_at_a_time(reduction, case):
    model, data = case
    gradients = one_sample_at_a_time(model, data)
    wanted = {
        "per_sample": lambda g: g.abs().mean(0),
        "batch": lambda g: g.mean(0).abs(),
        "prefix_sums": lambda g: g.cumsum(0).abs().sum(0),
    }[reduction]
    found = scores(model, data, reduction=reduction)
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert (gradient != 0).any()
        torch.testing.assert_close(found[name], wanted(gradient), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_batch_size_does_not_matter(reduction, case):
    model, data = case
    images, labels = (torch.cat(parts) for parts in zip(*data, strict=True))
    together = scores(model, [(images, labels)], reduction=reduction)
    for name, score in scores(model, data, reduction=reduction).items():
        torch.testing.assert_close(score, together[name], rtol=1e-9, atol=1e-12)


def test_num_samples_cuts_the_data(case):
    model, data = case
    (one, labels), (two, more) = data[0], data[1]
    wanted = scores(model, [(torch.cat([one, two[:2]]), torch.cat([labels, more[:2]]))])
    for name, score in scores(model, data, num_samples=6).items():
        torch.testing.assert_close(score, wanted[name], rtol=1e-9, atol=1e-12)


def test_data_past_num_samples_is_not_drawn(case):
    model, data = case
    drawn = []

    def draw():
        for batch in data:
            drawn.append(len(batch[0]))
            yield batch

    scores(model, draw(), num_samples=8)
    assert drawn == [4, 4]


@pytest.mark.parametrize("grad", [True, False])
def test_the_model_is_left_as_it_was(case, grad):
    model, data = case
    before = {key: value.clone() for key, value in model.state_dict().items()}
    hooks = [len(module._forward_hooks) for module in model.modules()]
    with torch.set_grad_enabled(grad):
        scores(model, data)
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    assert not model.training


@pytest.mark.parametrize("granularity", [Weights, Kernels])
@pytest.mark.parametrize("samples", [1, 5])
def test_single_precision_is_the_same_up_to_rounding(convnet, batches, granularity, samples):
    """Convolutions then take the compiled function."""
    model = MaskedModel(convnet.eval(), granularity())
    exact = copy.deepcopy(model).double()
    found = scores(model, batches, num_samples=samples)
    doubles = [(images.double(), labels) for images, labels in batches]
    for name, wanted in scores(exact, doubles, num_samples=samples).items():
        torch.testing.assert_close(found[name].double(), wanted, rtol=1e-4, atol=1e-6)


def test_a_dead_unit_scores_zero_for_its_incoming_weights(mlp, flat_batches):
    model = MaskedModel(mlp.eval(), Weights())
    model.masks["head"][:, 1] = False
    found = scores(model, flat_batches)
    assert (found["hidden"][1] == 0).all() and (found["hidden"][0] != 0).any()


def test_a_layer_that_runs_twice_is_refused(mlp, flat_batches):
    model = MaskedModel(mlp.eval(), Weights())
    plain = mlp.forward
    mlp.forward = lambda x: plain(x) + plain(x)
    with pytest.raises(UserError, match="hidden runs twice"):
        scores(model, flat_batches)


def test_no_data_is_refused(mlp):
    with pytest.raises(UserError, match="no training images"):
        scores(MaskedModel(mlp, Weights()), [])
