import json
import os

import pytest

from benchmarks.checkpoint_overhead import write_images
from benchmarks.fitting import fit
from granprune.errors import UserError

TINY = {
    "model__network__init_args__width": 2,
    "data__batch_size": 4,
    "pruning__schedule__init_args__steps": 2,
}


def test_each_run_is_new_and_leaves_nothing_behind(tmp_path, capsys):
    write_images(tmp_path, train=8, test=4)
    environment = dict(os.environ)
    runs = [fit(tmp_path, **TINY) for _ in range(2)]
    assert runs[0] != runs[1]
    for run in runs:
        assert json.loads((run / "result.json").read_text())["steps"] == 2
    assert capsys.readouterr().out == ""
    assert dict(os.environ) == environment


def test_a_run_that_fails_is_no_measurement(tmp_path, capsys):
    with pytest.raises(UserError, match="--pruning.density=7 ended with code 2"):
        fit(tmp_path, pruning__density=7)
    assert "pruning.density" in capsys.readouterr().err
