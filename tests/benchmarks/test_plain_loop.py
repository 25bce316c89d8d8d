import torch

from benchmarks.plain_loop import Photographs, PlainLoop, masked_network
from granprune.data import CIFAR10
from granprune.data.split import Normalise
from granprune.models import ResNet20


def test_the_rival_computes_what_the_network_computes():
    torch.manual_seed(0)
    rival, ours, images = masked_network().eval(), ResNet20().eval(), torch.randn(2, 3, 32, 32)
    state = rival.state_dict()
    masks = [key for key in state if key.endswith("mask")]
    assert len(masks) == 19
    ours.load_state_dict({key: value for key, value in state.items() if key not in masks})
    assert torch.equal(rival(images), ours(images))
    rival.conv.mask[3] = 0
    with torch.no_grad():
        ours.conv.weight[3] = 0
    assert torch.allclose(rival(images), ours(images), atol=1e-6)


def test_images_are_cropped_from_a_black_frame_and_normalised():
    grey = torch.full((1, 3, 32, 32), 100, dtype=torch.uint8)
    image, label = Photographs(grey, torch.tensor([7]))[0]
    normalise = Normalise(CIFAR10.mean, CIFAR10.std, torch.device("cpu"))
    values = torch.stack([normalise(torch.full((1, 3, 1, 1), value))[0, :, 0, 0] for value in (0, 100)])
    assert label == 7 and image.shape == (3, 32, 32) and image.dtype == torch.float32
    pixels = image.flatten(1).T[:, None]  # each is black or grey in all its channels
    assert ((pixels - values).abs().amax(-1) < 1e-5).any(1).all()


def test_a_turn_trains_and_goes_on_over_the_end_of_the_data():
    torch.manual_seed(0)
    images = torch.randint(256, (6, 3, 32, 32)).to(torch.uint8)
    loop = PlainLoop(images, torch.arange(6), batch=4, steps=3)
    before = [p.clone() for p in loop.network.parameters()]
    loop()  # batches of 4, 2 and 4
    assert loop.running_loss > 0
    assert all(not torch.equal(a, b) for a, b in zip(before, loop.network.parameters(), strict=True))
    assert loop.network.bn.num_batches_tracked == 3
    assert loop.network.conv.weight.is_contiguous()
