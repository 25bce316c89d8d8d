"""Every notebook runs from its first cell to its last, and is stored without outputs."""

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from tests.report.tables import toy_study

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TABLE = Path("results/mini/runs.csv")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """The study's table, or a hand-made one as long as there is none."""
    path = tmp_path / TABLE
    path.parent.mkdir(parents=True)
    known = ROOT / TABLE
    path.write_text(known.read_text() if known.exists() else toy_study().to_csv(index=False))
    return path


@pytest.fixture
def run(tmp_path: Path, monkeypatch):
    """Run a notebook in a folder of its own; gives what it displays."""
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")

    def cells(path: Path) -> list[Any]:
        shown: list[Any] = []
        names = {"display": lambda value, **options: shown.append(value)}  # as in IPython
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "code":
                assert not cell["outputs"]
                source = "".join(line for line in cell["source"] if not line.startswith("%"))  # IPython's
                exec(compile(source, f"{path.name}:{cell['id']}", "exec"), names)
        return shown

    return cells


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(run, table, path):
    run(path)


def test_figures_come_from_the_table_alone(run, table, capsys):
    table.write_text(toy_study().assign(data="lossy JPEG pixels").to_csv(index=False))
    headline, *figures = run(ROOT / "notebooks" / "figures.ipynb")
    assert "| Toy Net | Kernels | 85.50 |" in headline["text/markdown"]
    assert "from weights to kernels to channels" in capsys.readouterr().out
    assert len(figures) == 4 and all(isinstance(figure, Figure) for figure in figures)
    assert all("Toy: lossy JPEG pixels" in figure.get_supxlabel() for figure in figures)


def test_without_a_table_the_figures_say_so(run):
    with pytest.raises(SystemExit, match=r"^there is no ../results/mini/runs.csv: make it with .*$"):
        run(ROOT / "notebooks" / "figures.ipynb")
