import json

import pytest
import torch

from granprune.cli import PruningCLI
from granprune.errors import UserError
from granprune.granularity import Weights
from granprune.run.restore import read_result, restore


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of 8 steps, its optimizer's weights among them."""
    root = tmp_path_factory.mktemp("runs")
    words = "fit --config configs/quickstart.yaml --pruning.schedule.steps 4 --pruning.schedule.rounds 1"
    words += (
        f" --run.root {root} --wandb.enabled false --trainer.enable_progress_bar false --pruning.density 0.3"
    )
    PruningCLI(words.split())
    return next(root.iterdir())


def test_restores_the_network_that_was_measured(run):
    model, data = restore(run)
    data.prepare_data()
    data.setup()
    right = torch.cat([model(x).argmax(1) == y for x, y in data.test_dataloader()])
    assert float(right.double().mean()) == pytest.approx(read_result(run)["test_accuracy"], abs=1e-6)
    assert isinstance(model.granularity, Weights)
    assert not model.training
    kept = sum(int(mask.sum()) for mask in model.masks.values())
    assert kept == read_result(run)["kept"]
    assert data.seed == 1


def test_data_may_have_moved(run):
    assert restore(run, data_dir="elsewhere")[1].data_dir == "elsewhere"


def test_other_directories_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no run: config.yaml is missing"):
        restore(tmp_path)
    with pytest.raises(UserError, match="holds no run; a finished run has a result.json"):
        read_result(tmp_path)
    (tmp_path / "config.yaml").write_text("{}")
    with pytest.raises(UserError, match="is not finished"):
        read_result(tmp_path)
    (tmp_path / "result.json").write_text(json.dumps({"kept": 3}))
    assert read_result(tmp_path) == {"kept": 3}
