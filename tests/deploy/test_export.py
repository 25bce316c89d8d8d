import importlib.util

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.utils import prune

from granprune.deploy import export
from granprune.deploy.export import export_dense, export_onnx, export_prune
from granprune.errors import UserError
from granprune.granularity import Blocks, Channels, Kernels, Nodes, Weights
from granprune.models import DBSN, ResNet20

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript"))
CASES = [
    (lambda: ResNet20(width=3), Weights, (3, 16, 16)),
    (lambda: ResNet20(width=3), Kernels, (3, 16, 16)),
    (lambda: DBSN(widths=(9, 8), in_features=12), Weights, (12,)),
    (lambda: DBSN(widths=(9, 8), in_features=12), lambda: Blocks(2, 4), (12,)),
]


@pytest.mark.parametrize(
    ("build", "granularity", "shape"), [*CASES, (lambda: DBSN(widths=(9, 8), in_features=12), Nodes, (12,))]
)
def test_dense_weights_load_into_the_plain_network(masked, tmp_path, build, granularity, shape):
    model, plain, x = masked(build(), granularity(), 0.4), build().eval(), torch.randn(2, *shape)
    export_dense(model, tmp_path / "dense.safetensors")
    plain.load_state_dict(load_file(tmp_path / "dense.safetensors"))
    assert torch.allclose(plain(x), model(x), atol=1e-6)
    name, mask = next(iter(model.masks.items()))
    weight = plain.get_submodule(name).weight
    pruned = ~(mask[:, None] if granularity is Nodes else model.weight_masks()[name]).expand_as(weight)
    assert pruned.any()
    assert (weight[pruned] == 0).all()


@pytest.mark.parametrize(("build", "granularity", "shape"), CASES)
def test_prune_style_loads_into_a_network_pruned_by_torch(masked, tmp_path, build, granularity, shape):
    model, plain, x = masked(build(), granularity(), 0.4), build().eval(), torch.randn(2, *shape)
    export_prune(model, tmp_path / "prune.safetensors")
    for name in model.masks:
        prune.identity(plain.get_submodule(name), "weight")
    state = load_file(tmp_path / "prune.safetensors")
    assert {f"{name}.weight_{part}" for name in model.masks for part in ("orig", "mask")} <= state.keys()
    plain.load_state_dict(state)
    assert torch.allclose(plain(x), model(x), atol=1e-6)
    for name, weight in model.weights().items():
        assert torch.equal(state[f"{name}.weight_orig"], weight)


def test_channels_fit_into_no_plain_weights(masked, tmp_path):
    model = masked(ResNet20(width=2), Channels(), 0.5)
    with pytest.raises(UserError, match="compact it"):
        export_dense(model, tmp_path / "x")
    with pytest.raises(UserError, match="use Weights, Kernels or Blocks"):
        export_prune(model, tmp_path / "x")


def test_missing_onnx_is_said(masked, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install onnx onnxscript"):
        export_onnx(
            masked(ResNet20(width=2), Channels(), 0.5), torch.zeros(1, 3, 32, 32), tmp_path / "x.onnx"
        )


@pytest.mark.skipif(not HAS_ONNX, reason="onnx and onnxscript are not installed")
@pytest.mark.parametrize(
    ("build", "granularity", "shape"),
    [
        (lambda: ResNet20(width=3), Channels, (3, 32, 32)),
        (lambda: DBSN(widths=(9, 8), in_features=12), Nodes, (12,)),
    ],
)
def test_onnx_gives_the_same_outputs_at_any_batch_size(masked, tmp_path, build, granularity, shape):
    from onnx.reference import ReferenceEvaluator

    model, path = masked(build(), granularity(), 0.6), tmp_path / "network.onnx"
    export_onnx(model, torch.zeros(1, *shape), path)
    session = ReferenceEvaluator(str(path))
    for images in 1, 3:
        x = torch.randn(images, *shape)
        (y,) = session.run(None, {session.input_names[0]: x.numpy()})
        assert torch.allclose(torch.from_numpy(y), model(x), atol=1e-4)
