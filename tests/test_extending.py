"""The README's own examples of a criterion, a data set and a network, each run from a user's module."""

import json
import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.fixture
def examples(tmp_path):
    """Put the three blocks of the section "Adding things" where granprune is started."""
    section = README.split("## Adding things")[1].split("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names = re.findall(r"`(--[\w.]+) my_module\.(\w+)`", section)
    assert [option for option, _ in names] == ["--pruning.criterion", "--data", "--model.network"]
    for block, (_, name) in zip(blocks, names, strict=True):
        assert f"class {name}(" in block
        assert len([line for line in block.splitlines() if line.strip()]) <= 25
    (tmp_path / "my_module.py").write_text("\n\n".join(blocks))
    return [f"my_module.{name}" for _, name in names]


def completed(ended, folder):
    """The result of the one run there, which ended well."""
    assert (ended.code, ended.err) == (0, "")
    (directory,) = (folder / "runs").iterdir()
    return json.loads((directory / "result.json").read_text())


def test_criterion(granprune, small, examples, tmp_path):
    words = ["--config", small, "--pruning.criterion", examples[0]]
    result = completed(granprune("fit", *words), tmp_path)
    assert result["criterion"] == "Energy"
    assert [record["density"] for record in result["rounds"]] == [1, 0.5, 0.25]


def test_data(granprune, small, examples, tmp_path):
    """Two easy classes: two of the network's outputs come from the data set, and it learns them."""
    result = completed(granprune("fit", "--config", small, "--data", examples[1]), tmp_path)
    assert result["task"] == "Stripes"
    assert result["rounds"][0]["test_accuracy"] > 0.9
    assert result["rounds"][0]["layers"][-1]["components"] == 8 * 2


@pytest.mark.parametrize(("granularity", "components"), [("Weights", 64 * 32 + 32 * 10), ("Nodes", 32)])
def test_network(granprune, small, examples, tmp_path, granularity, components):
    words = ["--model.network", examples[2], "--model.granularity", granularity]
    result = completed(granprune("fit", "--config", small, *words), tmp_path)
    assert result["network"] == "OneHidden"
    assert (result["components"], result["kept"]) == (components, components // 4)


def test_all_at_once(granprune, small, examples, tmp_path):
    """Also in a file, where settings of a class of one's own are spelled out."""
    criterion, data, network = examples
    (tmp_path / "mine.yaml").write_text(
        f"model:\n  network: {{class_path: {network}, init_args: {{width: 16}}}}\n"
        f"data: {{class_path: {data}, init_args: {{batch_size: 64}}}}\n"
        f"pruning: {{criterion: {criterion}}}\n"
    )
    ended = granprune("fit", "--config", small, "--config", "mine.yaml")
    result = completed(ended, tmp_path)
    assert (result["task"], result["network"], result["criterion"]) == ("Stripes", "OneHidden", "Energy")
    assert result["components"] == 64 * 16 + 16 * 2
