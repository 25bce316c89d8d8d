import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from granprune.data import Digits
from granprune.deploy import command as deploy_command
from granprune.deploy import load
from granprune.deploy.command import accuracy_on, checked, main
from granprune.deploy.engine import engine
from granprune.deploy.storage import read_manifest
from granprune.errors import UserError
from granprune.granularity import Nodes, Weights
from granprune.models import DBSN


@pytest.fixture
def run(masked, monkeypatch, tmp_path):
    """Stands for a finished run of a pruned network on Digits."""

    def build(granularity):
        model = masked(DBSN(widths=(30, 20), in_features=64), granularity, 0.4)
        monkeypatch.setattr(deploy_command, "restore", lambda run, data_dir: (model, Digits(batch_size=64)))
        monkeypatch.setattr(
            deploy_command, "read_result", lambda run: {"name": "a-run", "test_accuracy": 0.25}
        )
        return model

    return build


def test_writes_a_network_that_gives_the_runs_outputs(run, tmp_path, capsys):
    model = run(Weights())
    main(["a-run", "--out", str(tmp_path), "--export", "dense,prune"])
    x = torch.rand(5, 1, 8, 8)
    assert torch.allclose(load(tmp_path)(x), model(x), atol=1e-5)
    facts = read_manifest(tmp_path)["facts"]
    data = Digits(batch_size=100)
    data.setup()
    assert facts["test_accuracy"] == pytest.approx(accuracy_on(model, data.test_dataloader()))
    assert facts["largest_error"] < 1e-4
    assert (facts["run"], facts["form"]) == ("a-run", "sparse engine")
    plain = DBSN(widths=(30, 20), in_features=64)
    plain.load_state_dict(load_file(tmp_path / "dense.safetensors"))
    assert torch.allclose(plain(x), model(x), atol=1e-5)
    printed = capsys.readouterr().out
    assert "prune.safetensors" in printed
    assert "in the run 25.00 %" in printed
    assert f"{sum(int(m.sum()) for m in model.masks.values()) + 60:,}" in printed  # biases stay


def test_onnx_runs_in_onnx_runtime(run, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = run(Nodes())
    main(["a-run", "--out", str(tmp_path), "--export", "onnx"])
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx")
    x = torch.rand(3, 1, 8, 8)
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert torch.allclose(torch.from_numpy(y), model(x), atol=1e-5)


def test_refuses_other_outputs(masked):
    model = masked(DBSN(widths=(3,), in_features=4), Weights(), 1)
    batches = [(torch.rand(2, 4), torch.zeros(2))]
    assert checked(model, model, batches) == 0
    for wrong in (lambda x: 1.01 * model(x)), (lambda x: torch.nan * model(x)):
        with pytest.raises(UserError, match="not deployed: outputs differ"):
            checked(wrong, model, batches)


def test_accuracy_is_the_share_of_right_classes():
    batches = [(torch.eye(3), torch.tensor([0, 1, 1])), (torch.eye(3)[:1], torch.tensor([0]))]
    assert accuracy_on(lambda x: x, batches) == 0.75


def test_without_a_compiler_says_so_once_and_marks_the_form(run, tmp_path, monkeypatch, capsys):
    run(Weights())
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda command: None)
    monkeypatch.setattr("granprune.deploy.network.engine", engine.__wrapped__)
    main(["a-run", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert printed.count("no C++ compiler: ") == 1
    assert "masked dense" in printed
    assert json.loads((tmp_path / "manifest.json").read_text())["facts"]["form"] == "masked dense"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a-run", "--out", "x", "--export", "tflite"], "--export tflite: give dense or prune or onnx"),
        (["a-run"], "required: out"),
        (["no-such-run", "--out", "x"], "no-such-run holds no run"),
    ],
)
def test_wrong_words_end_in_one_line(words, message):
    with pytest.raises(UserError, match=message):
        main(words)
