import torch
from sklearn.datasets import load_digits

from granprune.data import Digits


def test_digits_needs_no_folder(tmp_path):
    data = Digits(str(tmp_path / "missing"))
    data.prepare_data()
    data.setup()
    assert not (tmp_path / "missing").exists()
    x, y = next(data.train_dataloader())
    assert (x.shape, x.dtype, y.dtype) == ((128, 1, 8, 8), torch.float32, torch.int64)
    assert -1 <= x.min() and x.max() <= 1


def test_digits_holds_every_image_once():
    tensors = Digits().fetch()
    assert (len(tensors["train_labels"]), len(tensors["test_labels"])) == (1440, 357)
    found = torch.cat([tensors["train_images"], tensors["test_images"]]).flatten(1)
    labels = torch.cat([tensors["train_labels"], tensors["test_labels"]])
    pixels, expected = load_digits(return_X_y=True)
    rows = {(*(p.float() * 16 / 255).round().tolist(), y.item()) for p, y in zip(found, labels, strict=True)}
    assert rows == {(*p, y) for p, y in zip(pixels.tolist(), expected.tolist(), strict=True)}
    assert len(found) == len(pixels) == 1797


def test_grey_levels_are_spread_over_all_of_0_to_255():
    levels = Digits().fetch()["train_images"].unique().tolist()
    assert levels == [round(level * 255 / 16) for level in range(17)]


def test_the_split_is_the_same_whatever_the_seed():
    first, second = Digits(seed=0).fetch(), Digits(seed=1).fetch()
    assert torch.equal(first["test_images"], second["test_images"])
    assert first["test_labels"][:8].tolist() == [7, 1, 7, 5, 3, 3, 3, 4]


def test_every_class_is_in_both_parts():
    tensors = Digits().fetch()
    assert tensors["train_labels"].bincount().min() > 120
    assert tensors["test_labels"].bincount().min() > 20
