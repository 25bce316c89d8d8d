import copy

import pytest
import torch
from torch import nn

from granprune.criteria import Inverted, SynFlow
from granprune.granularity import Blocks, Channels, Kernels, Nodes, Weights
from granprune.masking import MaskedModel
from granprune.models import DBSN, ResNet20
from granprune.pruning import prune

CASES = [
    (Weights(), "convnet"),
    (Kernels(), "convnet"),
    (Blocks(2, 4, 2, 3), "convnet"),
    (Channels(), "convnet"),
    (Weights(), "mlp"),
    (Nodes(), "mlp"),
]


def scores(model, shape=(1, 2, 4, 4)):
    return SynFlow()(model, [(torch.full(shape, torch.nan), None)], torch.Generator())


def linearized(network):
    """A copy with absolute weights and no shifts, in double precision; ReLUs then do nothing."""
    network = copy.deepcopy(network).double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()
        if getattr(module, "bias", None) is not None:
            module.bias.data.zero_()
        if hasattr(module, "weight"):
            module.weight.data.abs_()
    return network


@pytest.mark.parametrize("granularity, name", CASES, ids=lambda value: str(type(value).__name__))
def test_mask_times_the_gradient_of_the_flow(granularity, name, request):
    network = request.getfixturevalue(name)
    shape = (1, 2, 4, 4) if name == "convnet" else (1, 1, 2, 2)
    copied = MaskedModel(linearized(network), granularity)
    model = MaskedModel(network.eval(), granularity)
    generator = torch.Generator().manual_seed(1)
    for key, mask in model.masks.items():
        mask.copy_(torch.rand(mask.shape, generator=generator) < 0.7)
        copied.masks[key].copy_(mask)
    with copied.soft_masks() as soft:
        flow = copied(torch.ones(shape).double()).sum()
        gradients = dict(zip(soft, torch.autograd.grad(flow, list(soft.values())), strict=True))
    found = scores(model, shape)
    for key, score in found.items():
        torch.testing.assert_close(score, gradients[key] * model.masks[key], rtol=1e-9, atol=0)
        assert score.dtype == torch.float64 and (score > 0).any()


def test_a_weights_score_is_the_sum_over_its_paths_by_hand(mlp):
    model = MaskedModel(mlp, Weights())
    found = scores(model, (1, 1, 2, 2))
    hidden, head = (module.weight.detach().double().abs() for module in (mlp.hidden, mlp.head))
    for h in range(3):
        for i in range(4):
            assert found["hidden"][h, i] == pytest.approx(float(hidden[h, i] * head[:, h].sum()))
        for o in range(2):
            assert found["head"][o, h] == pytest.approx(float(head[o, h] * hidden[h].sum()))


def test_flow_is_conserved_at_every_layer():
    model = MaskedModel(DBSN(10, (30, 20, 15), 64), Weights())  # tanh: linear for a signal this small
    totals = [float(score.sum()) for score in scores(model, (1, 1, 8, 8)).values()]
    assert totals == pytest.approx([totals[0]] * 4, rel=1e-9)


def test_a_deep_network_of_large_weights_stays_finite():
    model = MaskedModel(ResNet20(width=4), Weights())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(100)
    for score in scores(model, (1, 3, 32, 32)).values():
        assert score.isfinite().all() and (score > 0).any()


def test_passes_are_offered_also_when_inverted():
    assert SynFlow().passes == 100
    assert Inverted(SynFlow(passes=7)).passes == 7


def test_the_model_is_left_as_it_was(convnet):
    model = MaskedModel(convnet.eval(), Kernels())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    scores(model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def in_passes(network, passes, density, shape):
    """The masks after one pruning of that many passes."""
    criterion = SynFlow(passes)
    model = MaskedModel(network.eval(), Weights())
    for count in range(1, passes + 1):
        found = criterion(model, [(torch.zeros(shape), None)], torch.Generator())
        model.set_masks(prune(model.masks, found, [(list(model.masks), density ** (count / passes))]))
    return model.masks


def test_a_hundred_passes_leave_no_layer_without_weights_where_one_does():
    torch.manual_seed(0)
    network = DBSN(10, (200, 100, 20), 64)
    dead = {
        passes: [
            n
            for n, mask in in_passes(copy.deepcopy(network), passes, 0.002, (1, 1, 8, 8)).items()
            if not mask.any()
        ]
        for passes in (1, 100)
    }
    assert dead[1] and not dead[100]


@pytest.mark.slow
def test_no_layer_of_resnet20_dies_at_a_hundredth():
    torch.manual_seed(0)
    masks = in_passes(ResNet20(), 100, 0.01, (1, 3, 32, 32))
    assert sum(int(mask.sum()) for mask in masks.values()) == 267_696 - round(0.99 * 267_696)
    assert all(mask.any() for mask in masks.values())
