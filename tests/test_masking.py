import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from granprune.errors import UserError
from granprune.granularity import Channels, Kernels, Nodes, Weights
from granprune.masking import MaskedModel, density, evaluating, is_mask, raw_weight
from granprune.models import DBSN, ResNet20

CONV_GRANULARITIES = [Weights, Kernels, Channels]


def prune_at_random(model: MaskedModel, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    masks = {name: torch.rand(mask.shape, generator=generator) < 0.6 for name, mask in model.masks.items()}
    model.set_masks(masks)
    return masks


def test_masks_start_as_ones_and_change_nothing(convnet, batches):
    plain = copy.deepcopy(convnet).eval()
    images = batches[0][0]
    for granularity in CONV_GRANULARITIES:
        model = MaskedModel(copy.deepcopy(convnet), granularity()).eval()
        assert all(mask.dtype == torch.bool and mask.all() for mask in model.masks.values())
        assert torch.equal(model(images), plain(images))


@pytest.mark.parametrize("granularity", [Weights, Kernels])
def test_masked_weights_written_out(granularity, convnet, batches):
    convnet.double().eval()
    plain = copy.deepcopy(convnet)
    model = MaskedModel(convnet, granularity())
    masks = prune_at_random(model)
    x = batches[0][0].double()
    y = F.conv2d(x, plain.stem.weight * masks["stem"], padding=1)
    y = F.relu((y - 1) / (4 + 1e-5) ** 0.5 * plain.bn.weight.view(-1, 1, 1) + plain.bn.bias.view(-1, 1, 1))
    z = F.relu(F.conv2d(y, plain.conv1.weight * masks["conv1"], plain.conv1.bias, padding=1, groups=2))
    y = F.relu(F.conv2d(z, plain.conv2.weight * masks["conv2"], padding=1) + y)
    torch.testing.assert_close(model(x), plain.head(y.mean((2, 3))))


def test_masked_channels_written_out(convnet, batches):
    plain = copy.deepcopy(convnet).eval()
    model = MaskedModel(convnet, Channels()).eval()
    masks = prune_at_random(model)
    x = batches[0][0]
    y = F.relu(plain.bn(plain.stem(x))) * masks["stem"]
    z = F.relu(plain.conv1(y)) * masks["conv1"]
    y = F.relu(plain.conv2(z) + y) * masks["conv2"]
    torch.testing.assert_close(model(x), plain.head(y.mean((2, 3))))


def test_masked_nodes_written_out(mlp, flat_batches):
    plain = copy.deepcopy(mlp)
    model = MaskedModel(mlp, Nodes())
    model.set_masks({"hidden": torch.tensor([True, False, True])})
    x = flat_batches[0][0]
    hidden = plain.hidden(x.flatten(1)) * torch.tensor([1.0, 0.0, 1.0])
    torch.testing.assert_close(model(x), plain.head(plain.act(hidden)))


def test_a_pruned_residual_channel_is_zero_with_its_skip(convnet, batches):
    model = MaskedModel(convnet, Channels()).eval()
    with model.observe() as activations:
        model(batches[0][0])
        assert (activations["stem"][:, 1] != 0).any() and (activations["conv2"][:, 1] != 0).any()
        model.masks["conv2"][1] = False
        model(batches[0][0])
        assert (activations["stem"][:, 1] != 0).any()  # what the skip would have carried
        assert (activations["conv2"][:, 1] == 0).all()


def test_a_channel_cut_before_the_skip_can_live_after_it(convnet, batches):
    model = MaskedModel(convnet, Channels()).eval()
    model.masks["stem"][1] = False
    with model.observe() as activations:
        model(batches[0][0])
    assert (activations["stem"][:, 1] == 0).all()
    assert (activations["conv2"][:, 1] != 0).any()


def test_gradients_with_respect_to_soft_masks_belong_to_one_sample_each(convnet, batches):
    model = MaskedModel(convnet, Channels()).double().eval()
    images = batches[0][0].double()
    with model.soft_masks(len(images)) as soft:
        assert all(value.shape == (4, *model.masks[name].shape) for name, value in soft.items())
        value = {name: value.double() for name, value in soft.items()}
        gradients = torch.autograd.grad(model(images).square().sum(), list(soft.values()))
    assert value.keys() == model.masks.keys()
    for i, image in enumerate(images):
        with model.soft_masks(1) as soft:
            alone = torch.autograd.grad(model(image[None]).square().sum(), list(soft.values()))
        for together, single in zip(gradients, alone, strict=True):
            torch.testing.assert_close(together[i], single[0])
    assert all(model._mask(name).soft is None for name in model.layers)


@pytest.mark.parametrize("granularity", [Weights, Kernels])
def test_pruned_weights_have_no_gradient(granularity, convnet, batches):
    model = MaskedModel(convnet, granularity())
    masks = prune_at_random(model)
    F.cross_entropy(model(batches[0][0]), batches[0][1]).backward()
    for name, weight in model.weights().items():
        mask = masks[name].expand_as(weight)
        assert (weight.grad[~mask] == 0).all() and (weight.grad[mask] != 0).any()


def test_masks_are_no_parameters(convnet):
    plain = sum(p.numel() for p in convnet.parameters())
    for granularity in CONV_GRANULARITIES:
        model = MaskedModel(copy.deepcopy(convnet), granularity())
        assert sum(p.numel() for p in model.parameters()) == plain


@pytest.mark.parametrize("granularity", CONV_GRANULARITIES)
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_own_their_masks_and_leave_the_original(copier, granularity, convnet, batches):
    model = MaskedModel(convnet, granularity()).eval()
    prune_at_random(model)
    images = batches[0][0]
    before = model(images)
    twin = copier(model)
    assert torch.equal(twin(images), before)
    for mask in twin.masks.values():
        mask.zero_()
    assert torch.equal(model(images), before)
    assert not torch.equal(twin(images), before)


@pytest.mark.parametrize("granularity", CONV_GRANULARITIES)
def test_state_dict_round_trip_is_strict_and_holds_the_masks(granularity, convnet, batches):
    model = MaskedModel(copy.deepcopy(convnet), granularity()).eval()
    state = model.state_dict()
    assert sum(is_mask(key) for key in state) == 3  # also before anything is pruned
    masks = prune_at_random(model)
    other = MaskedModel(convnet, granularity()).eval()
    live = other.masks
    other.load_state_dict(model.state_dict())
    assert all(torch.equal(other.masks[name], masks[name]) for name in masks)
    assert all(live[name] is other.masks[name] for name in masks)
    assert torch.equal(other(batches[0][0]), model(batches[0][0]))


def test_set_masks_changes_tensors_in_place(convnet):
    model = MaskedModel(convnet, Weights())
    live = model.masks
    prune_at_random(model)
    assert all(live[name] is model.masks[name] and not live[name].all() for name in live)


@pytest.mark.parametrize("network", [lambda: ResNet20(width=4), lambda: DBSN(widths=(8, 7), in_features=9)])
def test_granularities_share_one_dense_initialization_by_seed(network):
    states = []
    for granularity in (Weights, Kernels, Channels, Nodes):
        torch.manual_seed(5)
        plain = network()
        if any(granularity().applies(plain.get_submodule(x.name), x) for x in plain.prunable_layers()):
            states.append(MaskedModel(plain, granularity()).dense_state_dict())
    torch.manual_seed(5)
    dense = network().state_dict()
    assert len(states) >= 2
    for state in states:
        assert state.keys() == dense.keys()
        assert all(torch.equal(state[key], dense[key]) for key in dense)


def test_dense_state_is_raw_and_fits_the_plain_network(convnet):
    plain = copy.deepcopy(convnet)
    model = MaskedModel(convnet, Weights())
    prune_at_random(model)
    state = model.dense_state_dict()
    plain.load_state_dict(state)
    assert all(torch.equal(state[key], value) for key, value in plain.state_dict().items())


def test_raw_weight_of_plain_and_masked_layers(convnet):
    assert raw_weight(convnet.stem) is convnet.stem.weight
    model = MaskedModel(convnet, Weights())
    model.masks["stem"].zero_()
    assert (model.module("stem").weight == 0).all()
    assert (raw_weight(convnet.stem) != 0).any()
    assert raw_weight(convnet.stem) is model.weights()["stem"]


def test_evaluating_brings_each_mode_back(convnet):
    convnet.train()
    convnet.bn.eval()
    with evaluating(convnet):
        assert not any(module.training for module in convnet.modules())
    assert convnet.training and convnet.stem.training and not convnet.bn.training
    with pytest.raises(RuntimeError, match="inside"), evaluating(convnet):
        raise RuntimeError("inside")
    assert convnet.training


def test_observe_leaves_no_hooks(convnet, batches):
    model = MaskedModel(convnet, Weights())
    with model.observe() as activations:
        pass
    model(batches[0][0])
    assert activations == {}


@pytest.mark.parametrize(
    "network, granularity, possible",
    [
        (lambda: DBSN(widths=(4,), in_features=4), Channels, "possible are Weights, Nodes"),
        (lambda: ResNet20(width=2), Nodes, "possible are Weights, Kernels, Channels"),
    ],
)
def test_a_granularity_without_layers_is_refused(network, granularity, possible):
    with pytest.raises(UserError, match=possible):
        MaskedModel(network(), granularity())


def test_half_precision_keeps_boolean_masks(convnet):
    model = MaskedModel(convnet, Weights()).to(torch.bfloat16)
    assert all(mask.dtype == torch.bool for mask in model.masks.values())
    assert isinstance(model.module("stem"), nn.Conv2d) and model.module("stem").weight.dtype == torch.bfloat16


def test_density_is_over_all_layers():
    masks = {"a": torch.tensor([True, False, False, False]), "b": torch.ones(2, 2, dtype=torch.bool)}
    assert density(masks) == 5 / 8
