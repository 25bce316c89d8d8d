import pytest
import torch

from granprune.deploy.bench.forms import BFLOAT16, DENSE, ENGINES, OWN, forms, network_of, plain
from granprune.deploy.compact import Align
from granprune.granularity import Channels, Kernels, Weights
from granprune.models import ResNet20


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("batch", [1, 3])
def test_every_engine_gives_the_networks_outputs(masked, name, batch):
    for package in ENGINES[name].packages:
        pytest.importorskip(package)
    model, x = masked(ResNet20(width=4), Weights(), 1), torch.randn(batch, 3, 32, 32)
    with torch.no_grad():
        call = ENGINES[name].build(network_of("dense", name, model), x, 1)
        error = float((call(x) - model(x)).abs().max() / model(x).abs().max())
    assert error <= ENGINES[name].tolerance
    assert (error > 1e-4) == (name == BFLOAT16 and torch.cpu._is_avx512_bf16_supported())


def test_dense_network_has_no_masks(masked):
    model = masked(ResNet20(width=2), Kernels(), 0.5)
    network = plain(model)
    assert not any("parametrizations" in name for name, _ in network.named_parameters())
    assert torch.equal(network.conv.weight, model.weights()["conv"])


def test_forms_by_granularity(masked):
    weights, channels = (masked(ResNet20(width=3), kind(), 0.5) for kind in (Weights, Channels))
    assert forms(weights) == [("pruned", OWN), ("pruned", "masked dense")]
    assert ("compact", "OpenVINO") in forms(channels)
    assert {"torch eager", "torch.compile", "ONNX Runtime", "OpenVINO", OWN} < set(DENSE)
    assert any(isinstance(m, Align) for m in network_of("compact", "torch eager", channels).modules())


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr("granprune.deploy.bench.forms.find_spec", lambda name: None)
    assert ENGINES["OpenVINO"].missing == ["openvino"]
    assert ENGINES["torch eager"].missing == []
