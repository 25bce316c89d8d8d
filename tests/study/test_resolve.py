import pytest

from granprune.errors import UserError
from granprune.study.resolve import FitParser, resolve


def test_run_of_a_command_line(parser: FitParser, small_study) -> None:
    study = small_study(axes={"granularity": ["Nodes"], "density": [0.5], "seed": [4]})
    run = parser.resolve(study.commands()[0])
    assert run.name.startswith("digits-dbsn-nodes-magnitude-global-iterative-d0.5-s4-")
    assert str(run.directory.path) == f"{study.folder}/{run.name}"
    assert run.steps == 8 * 3
    assert run.command.startswith("granprune fit --config=")
    assert run.about["granularity"] == "Nodes"


def test_name_equals_the_directory_that_fit_takes(parser: FitParser, small_study, monkeypatch) -> None:
    from granprune.cli import PruningCLI

    words = small_study(axes={"criterion": ["SNIP"]}).commands()[0]
    taken = []
    monkeypatch.setattr(PruningCLI, "_own_directory", lambda cli: taken.append(cli.directory.path))
    monkeypatch.setattr(PruningCLI, "_run_subcommand", lambda cli, subcommand: None)
    monkeypatch.setattr("sys.argv", ["granprune"])
    PruningCLI(["fit", *words])
    assert taken == [parser.resolve(words).directory.path]


def test_equal_runs_count_once(small_study) -> None:
    axes = {
        "criterion": {
            "by name": {"pruning.criterion": "SNIP"},
            "in full": {"pruning.criterion": "granprune.criteria.SNIP"},
        }
    }
    assert len(resolve(small_study(axes=axes).commands())) == 1


def test_wrong_setting_is_one_line(small_study) -> None:
    with pytest.raises(UserError, match="SNAP"):
        resolve(small_study(axes={"criterion": ["SNAP"]}).commands())
