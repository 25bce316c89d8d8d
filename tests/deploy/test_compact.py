import pytest
import torch
from torch import nn

from granprune.deploy.compact import Align, compact
from granprune.errors import UserError
from granprune.granularity import Channels, Nodes, Weights
from granprune.models import DBSN, ResNet20


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("density", [0, 0.1, 0.3, 0.7, 1])
@pytest.mark.parametrize("seed", range(3))
def test_compact_resnet_is_exact_with_irregular_masks(masked, fold, density, seed):
    model = masked(ResNet20(width=5), Channels(), density, seed)
    small, x = compact(model, fold), torch.randn(2, 3, 32, 32)
    assert torch.allclose(small(x), model(x), atol=1e-5)
    assert not any(p.numel() == 0 for p in small.parameters() if p.ndim == 4)


@pytest.mark.parametrize("density", [0, 0.1, 0.5, 1])
def test_compact_dbsn_is_exact(masked, density):
    model = masked(DBSN(widths=(30, 20, 10), in_features=16), Nodes(), density)
    small, x = compact(model), torch.randn(3, 1, 4, 4)
    assert torch.allclose(small(x), model(x), atol=1e-6)


def test_sizes_by_hand(masked):
    model = masked(DBSN(widths=(4, 3), in_features=2), Nodes(), 1)
    model.set_masks({"hidden.0": torch.tensor([1, 0, 1, 0]), "hidden.1": torch.tensor([0, 1, 0])})
    shapes = [tuple(m.weight.shape) for m in compact(model) if isinstance(m, nn.Linear)]
    assert shapes == [(2, 2), (1, 2), (10, 1)]


def test_a_block_without_outputs_takes_all_before_it_along(masked):
    model = masked(ResNet20(width=4), Channels(), 1)
    masks = {name: mask.clone() for name, mask in model.masks.items()}
    masks["blocks.1.conv2"][:] = False
    whole = parameters(compact(model))
    model.set_masks(masks)
    small, x = compact(model), torch.randn(2, 3, 32, 32)
    # The skip connection ends there too: the stem, two blocks with their norms, and the weights of the
    # next block's first convolution, which would read only zeros.
    assert whole - parameters(small) == (3 * 4 * 9 + 8) + 4 * (4 * 4 * 9 + 8) + 4 * 4 * 9
    assert torch.allclose(small(x), model(x), atol=1e-5)


def test_trains_on_and_leaves_the_model_alone(masked):
    model = masked(ResNet20(width=4), Channels(), 0.5).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    small = compact(model)
    assert small.training
    optimizer = torch.optim.SGD(small.parameters(), 0.1)
    x, y = torch.randn(8, 3, 32, 32), torch.arange(8)
    losses = []
    for _ in range(5):
        loss = nn.functional.cross_entropy(small(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_align_by_hand():
    x = torch.tensor([10.0, 20, 30])[None, :, None, None]
    aligned = Align(torch.tensor([0, 2, 5]), torch.tensor([1, 2, 5, 7]))(x)
    assert aligned.flatten().tolist() == [0, 20, 30, 0]


def test_finer_granularities_are_refused(masked):
    with pytest.raises(UserError, match="Weights cannot be cut out"):
        compact(masked(ResNet20(width=2), Weights(), 0.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("want", [[1, 4, 6], [0, 2], [6]])
def test_channels_are_aligned_the_same_on_every_device(want, dtype):
    """By hand from channels 1, 3, 6; what GPUs do, too."""
    x = torch.randn(2, 3, 4, 4).to(dtype)
    align = Align(torch.tensor([1, 3, 6]), torch.tensor(want, dtype=torch.long))
    place = {1: 0, 3: 1, 6: 2}
    wanted = [x[:, place[c]] if c in place else torch.zeros_like(x[:, 0]) for c in want]
    expected = torch.stack(wanted, 1)
    assert torch.equal(align(x), expected)
    assert torch.equal(align.gathered(x), expected)


@pytest.mark.parametrize(
    "layer", ["conv", "blocks.0.conv1", "blocks.1.conv2", "blocks.3.conv2", "blocks.8.conv2"]
)
def test_a_layer_without_any_channel_left(masked, layer):
    """As global pruning leaves some; the blocks before and after keep theirs."""
    model = masked(ResNet20(width=5), Channels(), 0.7)
    model.set_masks({n: mask & (n != layer) for n, mask in model.masks.items()})
    x = torch.randn(2, 3, 32, 32)
    assert torch.allclose(compact(model)(x), model(x), atol=1e-5)
