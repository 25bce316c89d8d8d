import hashlib
import pickle
import shutil
import tarfile

import pytest
import torch
from torchvision import datasets

from granprune.data import CIFAR10, CIFAR100
from granprune.errors import UserError


def md5(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def write_batch(path, count, classes, key):
    images = torch.randint(256, (count, 3, 32, 32)).to(torch.uint8)
    labels = torch.randint(classes, (count,))
    path.write_bytes(pickle.dumps({"data": images.flatten(1).numpy(), key: labels.tolist()}))
    return images, labels


def make_official(kind, folder, monkeypatch):
    """Small files in the official format, whose checksums torchvision is told; returns their content."""
    source = getattr(datasets, kind.__name__)
    key = "labels" if kind is CIFAR10 else "fine_labels"
    base = folder / source.base_folder
    base.mkdir()
    content = {}
    for part, names in ("train", source.train_list), ("test", source.test_list):
        batches = [write_batch(base / name, 6, kind.num_classes, key) for name, _ in names]
        images, labels = map(torch.cat, zip(*batches, strict=True))
        content |= {f"{part}_images": images, f"{part}_labels": labels}
        monkeypatch.setattr(source, f"{part}_list", [[name, md5(base / name)] for name, _ in names])
    meta = base / source.meta["filename"]
    meta.write_bytes(pickle.dumps({source.meta["key"]: [str(i) for i in range(kind.num_classes)]}))
    monkeypatch.setattr(source, "meta", source.meta | {"md5": md5(meta)})
    return content


def pack(kind, folder, monkeypatch):
    """Turn the official folder into the official archive."""
    source = getattr(datasets, kind.__name__)
    with tarfile.open(folder / source.filename, "w:gz") as archive:
        archive.add(folder / source.base_folder, source.base_folder)
    shutil.rmtree(folder / source.base_folder)
    monkeypatch.setattr(source, "tgz_md5", md5(folder / source.filename))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100])
def test_official_files_are_used_without_network(tmp_path, monkeypatch, offline, kind, packed):
    content = make_official(kind, tmp_path, monkeypatch)
    if packed:
        pack(kind, tmp_path, monkeypatch)
    data = kind(str(tmp_path), batch_size=6)
    data.prepare_data()
    data.setup()
    assert data.path.exists()
    split = data.train_dataloader().split
    assert torch.equal(split.images, content["train_images"])
    assert torch.equal(split.labels, content["train_labels"])
    ((x, y),) = data.test_dataloader()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (kind.mean, kind.std))
    torch.testing.assert_close(x, (content["test_images"] / 255 - mean) / std, rtol=1e-5, atol=1e-5)
    assert torch.equal(y, content["test_labels"])


def test_the_file_once_made_is_all_that_is_needed(tmp_path, monkeypatch, offline):
    make_official(CIFAR100, tmp_path, monkeypatch)
    CIFAR100(str(tmp_path)).prepare_data()
    shutil.rmtree(tmp_path / "cifar-100-python")
    data = CIFAR100(str(tmp_path), batch_size=6)
    data.prepare_data()
    data.setup()
    x, y = next(data.train_dataloader())
    assert x.shape == (6, 3, 32, 32)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert ((0 <= y) & (y < 100)).all()


def test_a_damaged_official_file_is_not_used(tmp_path, monkeypatch, offline):
    make_official(CIFAR100, tmp_path, monkeypatch)
    with open(tmp_path / "cifar-100-python" / "train", "ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match=f"no cifar100 data in folder {tmp_path}: .* no network"):
        CIFAR100(str(tmp_path)).prepare_data()
    assert not (tmp_path / "cifar100.safetensors").exists()


@pytest.mark.parametrize(
    ("kind", "files"), [(CIFAR10, "cifar-10-batches-py/"), (CIFAR100, "cifar-100-python/")]
)
def test_without_network_folder_and_files_are_named(tmp_path, offline, kind, files):
    with pytest.raises(UserError) as error:
        kind(str(tmp_path / "new")).prepare_data()
    message = str(error.value)
    assert message.startswith(
        f"no {kind.name} data in folder {tmp_path / 'new'}: expected {kind.name}.safetensors"
    )
    assert files in message and "\n" not in message
