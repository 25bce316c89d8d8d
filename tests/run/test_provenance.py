import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from granprune.run.provenance import caveat

LOSSY = {"lossless": "false", "note": "lossy JPEG pixels"}


def test_images_that_lost_something_are_named_as_well_as_the_file_knows() -> None:
    assert caveat({**LOSSY, "source": "somewhere"}) == "lossy JPEG pixels"
    assert caveat({"lossless": "false", "source": "somewhere"}) == "somewhere"
    assert caveat({"lossless": "false"}) == "not the original pixels"


def test_originals_need_no_word() -> None:
    assert caveat({"lossless": "true", "note": "official files"}) is None
    assert caveat({}) is None


def test_a_run_keeps_its_data_files_account(granprune, small: Path, tmp_path: Path) -> None:
    """All metadata of the file are in the result, from where the report takes its note."""
    labels = torch.arange(240) % 10
    images = (25 * labels[:, None, None, None]).expand(-1, 1, 28, 28).to(torch.uint8).contiguous()
    parts = {f"{part}_{kind}": x.clone() for part in ("train", "test") for kind, x in
             (("images", images), ("labels", labels))}  # fmt: skip
    save_file(parts, tmp_path / "mnist.safetensors", metadata=LOSSY)
    words = ["--data", "MNIST", "--data.data_dir", ".", "--model.network.in_features", "784"]
    ended = granprune("fit", "--config", small, *words)
    assert (ended.code, ended.err) == (0, "")
    (result,) = tmp_path.glob("runs/*/result.json")
    assert json.loads(result.read_text())["data"] == LOSSY
