import pytest
import torch
from torchvision.transforms import functional as TF

from granprune.data.augment import CropFlip
from granprune.data.split import Normalise, hold_out
from granprune.errors import UserError
from granprune.seeding import seeded

CPU = torch.device("cpu")


def test_normalise_equals_torchvision():
    mean, std = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]
    images = torch.randint(256, (5, 3, 8, 8)).to(torch.uint8)
    expected = torch.stack([TF.normalize(i.float() / 255, mean, std) for i in images])
    result = Normalise(mean, std, CPU)(images)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_normalise_leaves_its_input_alone(kind):
    images = torch.full((2, 1, 4, 4), 255).to(kind)
    assert (Normalise((0.5,), (0.5,), CPU)(images) == 1).all()
    assert (images == 255).all()


def test_colour_comes_out_channels_last(numbered):
    images, _ = numbered(4).batch(torch.arange(4))
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert not images.is_contiguous()


def test_batch_without_draws_is_not_augmented(numbered):
    plain, augmented = numbered(8, None), numbered(8, CropFlip(2))
    index = torch.tensor([5, 2])
    images, labels = augmented.batch(index)
    assert labels.tolist() == [5, 2]
    assert torch.equal(images, plain.batch(index)[0])
    draws = augmented.draw(index, seeded(0))
    expected = augmented.normalise(CropFlip(2).apply(augmented.images[index], draws))
    assert torch.equal(augmented.batch(index, draws)[0], expected)


def test_no_draws_without_augmentation(numbered):
    assert numbered(8, None).draw(torch.arange(8), seeded(0)) == ()


def test_hold_out_divides_the_images_and_keeps_their_order(numbered):
    rest, held = hold_out(numbered(50), 0.3, seed=4)
    assert (len(rest), len(held)) == (35, 15)
    assert sorted([*rest.labels.tolist(), *held.labels.tolist()]) == list(range(50))
    assert held.labels.tolist() == sorted(held.labels.tolist())
    assert rest.labels.tolist() == sorted(rest.labels.tolist())
    assert torch.equal(held.images, numbered(50).images[held.labels])


def test_hold_out_follows_the_seed(numbered):
    first, again, other = (hold_out(numbered(50), 0.3, seed)[1].labels.tolist() for seed in (4, 4, 5))
    assert first == again != other


@pytest.mark.parametrize("fraction", [0.001, 0.999, 1.5])
def test_hold_out_refuses_an_empty_part(numbered, fraction):
    with pytest.raises(UserError, match="of 50 training images; neither part may be empty"):
        hold_out(numbered(50), fraction, seed=0)
