import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from granprune.deploy.engine import engine
from granprune.deploy.network import SparseNetwork, largest_error
from granprune.deploy.packed import SPARE
from granprune.deploy.storage import MANIFEST, TENSORS, load, load_model, read_manifest, save
from granprune.errors import UserError
from granprune.granularity import Blocks, Channels, Kernels, Nodes, Weights
from granprune.models import DBSN, ResNet20


@pytest.fixture
def stored(masked, tmp_path):
    model = masked(ResNet20(width=3, num_classes=7), Weights(), 0.3)
    save(model, tmp_path, test_accuracy=0.5)
    return model, tmp_path


@pytest.mark.parametrize(
    ("network", "granularity"),
    [
        (lambda: ResNet20(width=3, num_classes=7, in_channels=1), Weights),
        (lambda: ResNet20(width=3), Kernels),
        (lambda: ResNet20(width=3), Channels),
        (lambda: ResNet20(width=3), lambda: Blocks(2, 1, "full", 1)),
        (lambda: DBSN(widths=(9, 8), in_features=12), Weights),
        (lambda: DBSN(widths=(9, 8), in_features=12), Nodes),
    ],
)
def test_round_trip(masked, tmp_path, network, granularity):
    model = masked(network(), granularity(), 0.4)
    save(model, tmp_path)
    again = load_model(tmp_path)
    shape = (
        (1, 8, 8)
        if isinstance(model.network, ResNet20) and model.network.conv.in_channels == 1
        else (3, 8, 8)
    )
    x = torch.randn(2, *(shape if isinstance(model.network, ResNet20) else (12,)))
    assert torch.equal(again(x), model(x))
    assert all(torch.equal(mask, model.masks[name]) for name, mask in again.masks.items())
    assert isinstance(load(tmp_path), SparseNetwork)
    assert largest_error(load(tmp_path), model, x) < 1e-4


def test_manifest_says_what_it_is(stored):
    manifest = read_manifest(stored[1])
    assert manifest["network"] == "ResNet20"
    assert manifest["arguments"] == {"num_classes": 7, "width": 3, "in_channels": 3}
    assert manifest["granularity"] == "Weights"
    assert manifest["density"] == pytest.approx(0.3, abs=0.05)
    assert manifest["facts"] == {"test_accuracy": 0.5}


def test_pruned_weights_take_no_room(masked, tmp_path):
    save(masked(ResNet20(), Weights(), 0.05), tmp_path / "sparse")
    save(masked(ResNet20(), Weights(), 1), tmp_path / "dense")
    sizes = [(tmp_path / name / TENSORS).stat().st_size for name in ("sparse", "dense")]
    assert sizes[0] < 0.2 * sizes[1]


def test_a_network_of_pruned_units_is_stored_as_the_small_one(masked, tmp_path):
    """By hand: 2 of 4 nodes of 3 inputs, 1 of 3 nodes, 10 outputs; biases stay whole."""
    model = masked(DBSN(widths=(4, 3), in_features=3), Nodes(), 1)
    model.set_masks({"hidden.0": torch.tensor([1, 0, 1, 0]), "hidden.1": torch.tensor([0, 0, 1])})
    save(model, tmp_path)
    with safe_open(tmp_path / TENSORS, "pt") as tensors:
        weights = {key: len(tensors.get_tensor(key)) - SPARE for key in tensors.keys() if "weight" in key}  # noqa: SIM118
    assert weights == {"hidden.0.weight": 2 * 3, "hidden.1.weight": 1 * 2, "head.weight": 10 * 1}
    kept = load_model(tmp_path).weights()["hidden.1"]
    assert torch.equal(kept[2, [0, 2]], model.weights()["hidden.1"][2, [0, 2]])
    assert kept.count_nonzero() == 2


def test_tampered_manifest_is_refused(stored):
    path = stored[1] / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["facts"]["test_accuracy"] = 0.9
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="changed after it was written"):
        load(stored[1])


def test_tampered_tensors_are_refused(stored):
    path = stored[1] / TENSORS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="changed after it was written"):
        load(stored[1])


@pytest.mark.parametrize("name", [MANIFEST, TENSORS])
def test_missing_files_are_named(stored, name):
    (stored[1] / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        load(stored[1])


@pytest.mark.parametrize(
    ("text", "message"), [("no json", "not JSON"), ("[]", "format"), ('{"format": 9}', "format")]
)
def test_other_manifests_are_refused(stored, text, message):
    (stored[1] / MANIFEST).write_text(text)
    with pytest.raises(UserError, match=message):
        load(stored[1])


def test_without_a_compiler_the_masked_network_runs_and_says_so(stored, monkeypatch):
    model, folder = stored
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda command: None)
    monkeypatch.setattr("granprune.deploy.network.engine", engine.__wrapped__)  # not what was loaded before
    with pytest.warns(UserWarning, match="no C.. compiler: .* masked dense network runs instead"):
        network = load(folder)
    assert network.form == "masked dense"
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():  # with gradients, narrow shortcuts take another way
        assert torch.equal(network(x), model(x))


MEASURE = """
import sys, torch
from pathlib import Path
from granprune.deploy import load
from granprune.models import DBSN
torch.set_num_threads(1)
SIZE = dict(widths=(1500, 1500), in_features=784)
def kib(entry):
    return int(next(line for line in open("/proc/self/status") if line.startswith(entry)).split()[1])
x = torch.randn(1, 784)
torch.nn.functional.linear(x, torch.randn(8, 784))  # what any product needs
before = kib("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
with torch.inference_mode():
    network = load(Path(sys.argv[2])) if sys.argv[1] == "deployed" else DBSN(**SIZE)
    network(x)
print(kib("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell peak memory")
@pytest.mark.parametrize("density", [0.5, 0.1])
def test_takes_less_memory_than_the_dense_network_from_loading_on(density, masked, tmp_path):
    save(masked(DBSN(widths=(1500, 1500), in_features=784), Weights(), density), tmp_path)
    load(tmp_path)  # compiles the engine

    def peak(kind):
        words = [sys.executable, "-c", MEASURE, kind, str(tmp_path)]
        return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)

    assert peak("deployed") < peak("dense")


def test_nothing_dense_is_made_on_loading(stored, monkeypatch):
    monkeypatch.setattr("granprune.deploy.storage.MaskedModel", None)  # would fail if it were built
    assert isinstance(load(stored[1]), SparseNetwork)
