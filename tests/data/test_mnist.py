import struct

import pytest
import torch

from granprune.data import MNIST
from granprune.errors import UserError


@pytest.fixture
def raw(tmp_path):
    """A folder with small official files, uncompressed as torchvision keeps them, and their content."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    content = {}
    for part, prefix, count in ("train", "train", 12), ("test", "t10k", 5):
        images = torch.randint(256, (count, 28, 28)).to(torch.uint8)
        labels = torch.randint(10, (count,)).to(torch.uint8)
        header = struct.pack(">IIII", 2051, count, 28, 28)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.numpy().tobytes())
        header = struct.pack(">II", 2049, count)
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.numpy().tobytes())
        content |= {f"{part}_images": images[:, None], f"{part}_labels": labels.long()}
    return tmp_path, content


def test_official_files_are_used_without_network(raw, offline):
    folder, content = raw
    data = MNIST(str(folder), batch_size=4)
    data.prepare_data()
    data.setup()
    assert (folder / "mnist.safetensors").exists()
    (x, y), *_ = data.test_dataloader()
    assert x.shape == (3, 1, 28, 28)
    assert torch.equal(y, content["test_labels"][:3])
    torch.testing.assert_close(x, (content["test_images"][:3] / 255 - 0.5) / 0.5, rtol=1e-6, atol=1e-6)
    train = data.train_dataloader().split
    assert torch.equal(train.images, content["train_images"])
    assert torch.equal(train.labels, content["train_labels"])


def test_a_truncated_official_file_is_named(raw, offline):
    folder, _ = raw
    path = folder / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=f"no mnist data in folder {folder}: expected mnist.safetensors or"):
        MNIST(str(folder)).prepare_data()


def test_without_network_folder_and_files_are_named(tmp_path, offline):
    with pytest.raises(UserError) as error:
        MNIST(str(tmp_path)).prepare_data()
    message = str(error.value)
    assert message.startswith(
        f"no mnist data in folder {tmp_path}: expected mnist.safetensors or "
        "MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte, and getting it failed ("
    )
    assert "\n" not in message
