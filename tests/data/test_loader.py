from itertools import islice

import lightning.pytorch as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import Checkpoint
from torch import nn

from granprune.data.augment import CropFlip, RotateStretch
from granprune.data.loader import EvalLoader, TrainLoader
from granprune.errors import UserError

quick = settings(deadline=None, max_examples=50)
AUGMENTATIONS = st.sampled_from([None, CropFlip(2), RotateStretch()])


@st.composite
def divisible(draw):
    """Images, batch size and processes such that every batch can be divided."""
    world = draw(st.integers(1, 4))
    return world * draw(st.integers(1, 12)), world * draw(st.integers(1, 6)), world


def epochs(loader, count):
    """The batches of some epochs, one list each."""
    return [list(loader) for _ in range(count)]


def assert_equal(batches, others):
    assert len(batches) == len(others)
    for (x, y), (u, v) in zip(batches, others, strict=True):
        assert torch.equal(x, u) and torch.equal(y, v)


@quick
@given(divisible(), st.integers(0, 2**32))
def test_every_sample_once_an_epoch(numbered, sizes, seed):
    images, batch_size, world = sizes
    loaders = [TrainLoader(numbered(images), batch_size, seed, rank, world) for rank in range(world)]
    for batches in zip(*(epochs(loader, 3) for loader in loaders), strict=True):
        served = [label for rank in batches for _, y in rank for label in y.tolist()]
        assert sorted(served) == list(range(images))


@quick
@given(divisible(), st.integers(0, 2**32), AUGMENTATIONS)
def test_processes_divide_the_batches_of_one(numbered, sizes, seed, augmentation):
    images, batch_size, world = sizes
    split = numbered(images, augmentation)
    whole = list(TrainLoader(split, batch_size, seed))
    parts = zip(*(TrainLoader(split, batch_size, seed, rank, world) for rank in range(world)), strict=True)
    joined = [tuple(map(torch.cat, zip(*part, strict=True))) for part in parts]
    assert_equal(joined, whole)


@quick
@given(st.integers(1, 30), st.integers(1, 12), st.data())
def test_resuming_anywhere_changes_nothing(numbered, images, batch_size, data):
    def loader():
        return TrainLoader(numbered(images), batch_size, seed=3)

    epoch = len(loader())
    at = data.draw(st.integers(0, 3 * epoch - 1))
    uninterrupted = sum(epochs(loader(), 4), [])
    first, second = loader(), loader()
    for _ in range(at // epoch):
        list(first)
    list(islice(first, at % epoch))
    second.load_state_dict(first.state_dict())
    rest = list(second)
    assert len(rest) == epoch - at % epoch
    assert_equal(rest, uninterrupted[at : at + len(rest)])
    assert_equal(list(second), uninterrupted[at + len(rest) :][:epoch])


def test_position_is_the_number_of_batches_served(numbered):
    loader = TrainLoader(numbered(10), 4, seed=0)
    assert len(loader) == 3
    assert [(len(y), loader.state_dict()["pos"]) for _, y in loader] == [(4, 1), (4, 2), (2, 3)]
    with pytest.raises(StopIteration):
        next(loader)
    assert loader.state_dict() == {"pos": 3}
    next(iter(loader))
    assert loader.state_dict() == {"pos": 4}


def test_asking_for_an_iterator_twice_skips_nothing(numbered):
    loader, other = (TrainLoader(numbered(10), 4, seed=0) for _ in range(2))
    next(iter(loader))
    iter(loader)
    iter(loader)
    assert_equal(list(loader), list(other)[1:])


def test_epochs_and_seeds_differ_in_order_and_augmentation(numbered):
    loader = TrainLoader(numbered(64), 64, seed=0)
    (x, y), (u, v) = next(iter(loader)), next(iter(loader))
    (w, z) = next(TrainLoader(numbered(64), 64, seed=1))
    assert y.tolist() != v.tolist() and y.tolist() != z.tolist()
    by_label = [images[labels.argsort()] for images, labels in ((x, y), (u, v), (w, z))]
    for first, second in (0, 1), (0, 2), (1, 2):
        assert not torch.equal(by_label[first], by_label[second])


def test_loaders_leave_the_global_generator_alone(numbered):
    before = torch.get_rng_state()
    list(TrainLoader(numbered(10), 4, seed=0))
    list(EvalLoader(numbered(10), 4))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("images", "batch_size", "world", "message"),
    [
        (100, 10, 4, "batch_size 10 is not divisible by the 4 devices"),
        (101, 4, 2, "last batch of an epoch has 1 of 101 images, .* the 2 devices"),
        (3, 8, 2, "last batch of an epoch has 3 of 3 images"),
    ],
)
def test_batches_that_cannot_be_divided_are_refused(numbered, images, batch_size, world, message):
    with pytest.raises(UserError, match=message):
        TrainLoader(numbered(images), batch_size, seed=0, rank=0, world=world)


@quick
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 5))
def test_evaluation_counts_every_sample_once(numbered, images, batch_size, world):
    split = numbered(images)
    loaders = [EvalLoader(split, batch_size, rank, world) for rank in range(world)]
    shards = [list(loader) for loader in loaders]
    assert {len(shard) for shard in shards} == {len(loader) for loader in loaders} == {len(loaders[0])}
    labels = [[label for _, y in shard for label in y.tolist()] for shard in shards]
    assert sorted(sum(labels, [])) == list(range(images))
    assert all(shard == sorted(shard) for shard in labels)
    for x, y in sum(shards, []):
        assert len(x) == len(y) <= -(-batch_size // world)
        assert torch.equal(x, split.normalise(split.images[y]))  # not augmented


def test_evaluation_without_enough_images_gives_empty_batches_that_a_network_takes(numbered):
    (x, y), *others = EvalLoader(numbered(2), 4, rank=3, world=4)
    assert not others
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((0, 3, 6, 5), torch.float32, (0,), torch.int64)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    assert network.eval()(x).shape == (0, 120)


class Recorder(pl.LightningModule):
    """Trains one weight on the labels it sees, and writes them down."""

    def __init__(self, loader):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.loader = loader
        self.seen = []

    def train_dataloader(self):
        return self.loader

    def training_step(self, batch, index):
        self.seen.append(batch[1].tolist())
        return (self.weight - batch[0].mean() * batch[1].float().mean()) ** 2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveEachStep(Checkpoint):
    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, *unused):
        trainer.save_checkpoint(self.folder / f"{trainer.fit_loop.epoch_loop.total_batch_idx}.ckpt")


def fit(loader, accumulate=1, callbacks=(), ckpt_path=None, **options):
    module = Recorder(loader)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=-1,
        accumulate_grad_batches=accumulate,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module, ckpt_path=ckpt_path)
    return module


def test_lightning_serves_what_plain_iteration_serves(numbered):
    module = fit(TrainLoader(numbered(10), 4, seed=0), max_steps=8)
    plain = sum(epochs(TrainLoader(numbered(10), 4, seed=0), 3), [])[:8]
    assert module.seen == [y.tolist() for _, y in plain]


def test_lightning_with_short_epochs_serves_every_sample(numbered):
    module = fit(TrainLoader(numbered(10), 4, seed=0), max_steps=6, limit_train_batches=2)
    plain = sum(epochs(TrainLoader(numbered(10), 4, seed=0), 2), [])
    assert module.seen == [y.tolist() for _, y in plain]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_lightning_resumes_exactly_at_every_batch(numbered, tmp_path, accumulate):
    def run(**options):
        return fit(TrainLoader(numbered(10), 4, seed=0), accumulate, max_steps=6, **options)

    full = run(callbacks=[SaveEachStep(tmp_path)])
    boundaries = (
        range(len(full.seen) - 1) if accumulate == 1 else (1, 2, 4, 5)
    )  # where no gradient is pending
    for batch in boundaries:
        resumed = run(ckpt_path=tmp_path / f"{batch}.ckpt")
        assert resumed.seen == full.seen[batch + 1 :]
        assert torch.equal(resumed.weight, full.weight)
