from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser
from safetensors.torch import load_file, save_file

from granprune.data import ImageDataModule
from granprune.data.augment import CropFlip
from granprune.errors import UserError

TRAIN, TEST = 40, 10


class Toy(ImageDataModule):
    """Image i of a split has label i."""

    name = "toy"
    num_classes = TRAIN
    image_shape = (3, 6, 6)
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)
    augmentation = CropFlip(2)
    official_files = "toy.tar.gz"
    fetched = 0

    def fetch(self):
        self.fetched += 1
        generator = torch.Generator().manual_seed(0)
        return {
            "train_images": torch.randint(256, (TRAIN, 3, 6, 6), generator=generator).to(torch.uint8),
            "train_labels": torch.arange(TRAIN),
            "test_images": torch.randint(256, (TEST, 3, 6, 6), generator=generator).to(torch.uint8),
            "test_labels": torch.arange(TEST),
        }


class Unreachable(Toy):
    def fetch(self):
        raise OSError("no network\nand a second line")


def ready(folder, kind=Toy, trainer=None, **options):
    data = kind(str(folder), **{"batch_size": 8} | options)
    data.trainer = trainer
    data.prepare_data()
    data.setup("fit")
    return data


def trainer(rank=0, world=1, device="cpu"):
    strategy = SimpleNamespace(root_device=torch.device(device))
    return SimpleNamespace(global_rank=rank, world_size=world, strategy=strategy)


def labels(batches):
    return [label for _, y in batches for label in y.tolist()]


def test_attributes_are_known_before_any_loading(tmp_path):
    data = Toy(str(tmp_path / "missing"))
    assert (data.name, data.num_classes, data.image_shape) == ("toy", TRAIN, (3, 6, 6))
    assert data.evaluation_names == ["test"]
    assert not (tmp_path / "missing").exists()


def test_prepare_data_fetches_once_for_all(tmp_path):
    first, second = Toy(str(tmp_path)), Toy(str(tmp_path))
    for data in first, first, second:
        data.prepare_data()
    assert (first.fetched, second.fetched) == (1, 0)
    assert load_file(tmp_path / "toy.safetensors").keys() == first.fetch().keys()


def test_splits(tmp_path):
    data = ready(tmp_path)
    assert sorted(labels(data.train_dataloader())) == list(range(TRAIN))
    (test,) = data.val_dataloader()
    assert labels(test) == labels(data.test_dataloader()) == list(range(TEST))


def test_validation_images_are_held_out_of_training(tmp_path):
    data = ready(tmp_path, validation_fraction=0.25)
    assert data.evaluation_names == ["validation", "test"]
    validation, test = map(labels, data.val_dataloader())
    assert len(validation) == 10
    assert test == list(range(TEST))
    assert sorted(labels(data.train_dataloader()) + validation) == list(range(TRAIN))
    assert sorted(labels(data.scoring_batches(0)) + validation) == list(range(TRAIN))


def test_validation_images_are_not_augmented(tmp_path):
    plain, data = (ready(tmp_path, validation_fraction=0.25, augment=a) for a in (False, True))
    for (x, _), (u, _) in zip(plain.val_dataloader()[0], data.val_dataloader()[0], strict=True):
        assert torch.equal(x, u)


def test_augmentation_can_be_switched_off(tmp_path):
    split = ready(tmp_path, augment=False)
    pixels = {tuple(i.tolist()) for i in split.fetch()["train_images"].flatten(1)}
    for x, _ in split.train_dataloader():
        assert {tuple(i.tolist()) for i in ((x + 1) * 127.5).round().int().flatten(1)} <= pixels


def test_processes_share_training_and_evaluation(tmp_path):
    alone = ready(tmp_path)
    two = [ready(tmp_path, trainer=trainer(rank, 2)) for rank in (0, 1)]
    for (x, y), *parts in zip(alone.train_dataloader(), *(d.train_dataloader() for d in two), strict=True):
        assert torch.equal(x, torch.cat([u for u, _ in parts]))
        assert torch.equal(y, torch.cat([v for _, v in parts]))
    shares = [labels(data.test_dataloader()) for data in two]
    assert shares == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    with pytest.raises(UserError, match="batch_size 8 is not divisible by the 3 devices"):
        ready(tmp_path, trainer=trainer(0, 3)).train_dataloader()


@pytest.mark.parametrize(("device", "expected"), [("auto", "meta"), ("cpu", "cpu")])
def test_device_decides_where_the_images_live(tmp_path, device, expected):
    data = ready(tmp_path, trainer=trainer(device="meta"), device=device, validation_fraction=0.25)
    x, y = next(data.train_dataloader())
    assert (x.device.type, y.device.type) == (expected, expected)
    x, y = next(data.scoring_batches(0))
    assert (x.device.type, y.device.type) == (expected, expected)


def test_setup_loads_once_a_device(tmp_path):
    data = ready(tmp_path)
    first = data.train_dataloader().split
    data.setup("test")
    assert data.train_dataloader().split is first
    data.trainer = trainer(device="meta")
    data.setup("test")
    assert data.train_dataloader().split.images.device.type == "meta"


def test_scoring_batches_serve_every_training_image_augmented_once(tmp_path):
    data = ready(tmp_path)
    batches = list(data.scoring_batches(1, 16))
    assert [len(y) for _, y in batches] == [16, 16, 8]
    assert sorted(labels(batches)) == list(range(TRAIN))
    split = data.train_dataloader().split
    assert not any(torch.equal(x, split.batch(y)[0]) for x, y in batches)


@pytest.mark.parametrize("batch_size", [1, 7, 40, 1000])
def test_scoring_samples_do_not_depend_on_the_batch_size(tmp_path, batch_size):
    data = ready(tmp_path)
    x, y = map(torch.cat, zip(*data.scoring_batches(1, batch_size), strict=True))
    u, v = map(torch.cat, zip(*data.scoring_batches(1, 16), strict=True))
    assert torch.equal(x, u) and torch.equal(y, v)


def test_scoring_batches_are_the_same_on_every_process(tmp_path):
    alone, *two = (ready(tmp_path, trainer=t) for t in (None, trainer(0, 2), trainer(1, 2)))
    for (x, y), *others in zip(*(d.scoring_batches(2) for d in (alone, *two)), strict=True):
        assert all(torch.equal(x, u) and torch.equal(y, v) for u, v in others)


def test_scoring_order_follows_round_and_seed(tmp_path):
    orders = [
        labels(ready(tmp_path, seed=seed).scoring_batches(round)) for round, seed in ((0, 0), (1, 0), (0, 1))
    ]
    assert len({tuple(order) for order in orders}) == 3


def test_scoring_in_between_changes_neither_training_nor_global_numbers(tmp_path):
    quiet, data = ready(tmp_path), ready(tmp_path)
    before = torch.get_rng_state()
    loader = data.train_dataloader()
    batches = []
    for batch in islice(loader, 4):
        batches.append(batch)
        next(data.scoring_batches(0))
    assert torch.equal(torch.get_rng_state(), before)
    for (x, _), (u, _) in zip(batches, islice(quiet.train_dataloader(), 4), strict=True):
        assert torch.equal(x, u)


def test_a_file_of_wrong_form_is_refused_at_setup(tmp_path):
    data = Toy(str(tmp_path))
    save_file(data.fetch() | {"train_labels": torch.zeros(TRAIN)}, data.path)
    data.prepare_data()
    with pytest.raises(UserError, match=r"toy.safetensors: train_labels is float32 \(40,\); expected int64"):
        data.setup()


def test_what_is_fetched_in_wrong_form_is_refused_and_not_kept(tmp_path):
    class Wrong(Toy):
        def fetch(self):
            return super().fetch() | {"train_labels": torch.zeros(TRAIN)}

    with pytest.raises(UserError, match="^Wrong: train_labels is float32"):
        Wrong(str(tmp_path)).prepare_data()
    assert not (tmp_path / "toy.safetensors").exists()


def test_the_source_of_the_file_is_told(tmp_path):
    save_file(Toy().fetch(), tmp_path / "toy.safetensors", {"note": "lossy"})
    assert ready(tmp_path).provenance == {"note": "lossy"}


def test_data_out_of_reach_name_folder_and_files(tmp_path):
    with pytest.raises(UserError) as error:
        Unreachable(str(tmp_path)).prepare_data()
    assert str(error.value) == (
        f"no toy data in folder {tmp_path}: expected toy.safetensors or toy.tar.gz, and getting it failed "
        "(OSError: no network)"
    )


@pytest.mark.parametrize("folder", ["file", "file/folder"])
def test_a_folder_that_is_none_is_named(tmp_path, folder):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=f"no toy data in folder {tmp_path / folder}: expected toy.safetensors"
    ):
        Toy(str(tmp_path / folder)).prepare_data()


def parse(*arguments):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageDataModule, "data")
    parser.add_argument("--classes", type=int)
    parser.link_arguments("data.num_classes", "classes", apply_on="instantiate")
    return parser.instantiate(parser.parse_args(arguments))


@pytest.mark.parametrize(
    ("name", "classes"), [("Digits", 10), ("MNIST", 10), ("CIFAR10", 10), ("CIFAR100", 100)]
)
def test_every_option_is_a_flag_of_every_data_set(name, classes):
    options = {
        "data_dir": "elsewhere",
        "batch_size": 64,
        "validation_fraction": 0.1,
        "augment": False,
        "device": "cpu",
        "seed": 3,
    }
    flags = [f"--data.{key}={str(value).lower()}" for key, value in options.items()]
    namespace = parse("--data", name, *flags)
    assert type(namespace.data).__name__ == name
    assert {key: getattr(namespace.data, key) for key in options} == options
    assert namespace.classes == classes


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--data.validation_fraction=1", "v>=0 and v<1"),
        ("--data.validation_fraction=-0.1", "v>=0 and v<1"),
        ("--data.batch_size=0", "v>0"),
        ("--data.device=gpu", "auto"),
    ],
)
def test_options_out_of_range_are_refused(flag, message):
    with pytest.raises(ArgumentError, match=message):
        parse("--data", "Digits", flag)
