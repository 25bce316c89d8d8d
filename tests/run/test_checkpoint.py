import random

import numpy as np
import pytest
import torch

from granprune.errors import UserError
from granprune.granularity import Weights
from granprune.masking import MaskedModel
from granprune.run.checkpoint import find_checkpoint, get_random_state, load_masks, set_random_state
from granprune.run.checkpoint_io import DamagedCheckpoint, SealedCheckpointIO, load
from granprune.run.directory import RunDirectory


def draw():
    gauss = random.gauss(0, 1), np.random.normal()  # each keeps a second number for the next call
    return gauss, torch.rand(2).tolist(), torch.randn(3).tolist(), random.random(), np.random.rand()


def test_the_random_state_survives_a_checkpoint(tmp_path):
    draw()
    SealedCheckpointIO().save_checkpoint(get_random_state(), tmp_path / "x.ckpt")
    first = draw()
    assert draw() != first
    set_random_state(load(tmp_path / "x.ckpt"))
    assert draw() == first


def save(directory, step, masks):
    state = {f"network.network.{name}.mask": mask for name, mask in masks.items()}
    SealedCheckpointIO().save_checkpoint(
        {"state_dict": {**state, "weight": torch.ones(1)}}, directory.checkpoint(step)
    )


def test_a_run_stands_for_its_newest_checkpoint(tmp_path):
    directory = RunDirectory(tmp_path)
    for step in 1, 2:
        save(directory, step, {})
    assert find_checkpoint(tmp_path) == directory.checkpoint(2)
    assert find_checkpoint(str(directory.checkpoint(1))) == directory.checkpoint(1)


def test_a_damaged_newest_checkpoint_is_not_replaced_by_another_network(tmp_path):
    directory = RunDirectory(tmp_path)
    for step in 1, 2:
        save(directory, step, {})
    directory.checkpoint(2).write_bytes(b"damaged")
    with pytest.raises(DamagedCheckpoint, match=f"{directory.checkpoint(2)} is damaged"):
        find_checkpoint(tmp_path)
    assert find_checkpoint(directory.checkpoint(1)) == directory.checkpoint(1)


@pytest.mark.parametrize(
    "name, message",
    [
        ("empty", "{} is neither a checkpoint nor a run directory"),
        ("missing", "there is no checkpoint and no run directory {}"),
    ],
)
def test_a_folder_without_checkpoint_is_refused(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message.format(tmp_path / name)):
        find_checkpoint(tmp_path / name)


def test_masks_of_another_run_take_this_runs_names(tmp_path, mlp):
    masks = MaskedModel(mlp, Weights()).masks
    others = {name: torch.arange(mask.numel()).view_as(mask) % 2 == 0 for name, mask in masks.items()}
    save(RunDirectory(tmp_path), 1, others)
    found = load_masks(tmp_path, masks)
    assert found.keys() == masks.keys()
    assert all(torch.equal(found[name], others[name]) for name in masks)


def test_masks_of_another_shape_are_refused(tmp_path, mlp):
    masks = MaskedModel(mlp, Weights()).masks
    save(RunDirectory(tmp_path), 1, {"hidden": torch.ones(1, dtype=torch.bool)})
    with pytest.raises(UserError, match="another network or granularity"):
        load_masks(tmp_path, masks)
