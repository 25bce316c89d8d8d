import pytest

from granprune.errors import UserError
from granprune.study.plan import Grid, Study, arguments, axis_values, product


def options(study: Study) -> list[list[str]]:
    """The study's command lines without the words that say where runs are kept."""
    kept = "--run.", "--wandb."
    return [[word for word in words if not word.startswith(kept)] for words in study.commands()]


def test_product_of_axes_in_their_order() -> None:
    study = Study("s", axes={"granularity": ["Weights", "Nodes"], "seed": [1, 2]})
    assert options(study) == [
        ["--model.granularity=Weights", "--seed_everything=1"],
        ["--model.granularity=Weights", "--seed_everything=2"],
        ["--model.granularity=Nodes", "--seed_everything=1"],
        ["--model.granularity=Nodes", "--seed_everything=2"],
    ]


def test_files_come_before_options_and_base_before_axes() -> None:
    task = {"A": {"config": ["a.yaml", "b.yaml"], "model.top_k": 5}}
    study = Study("s", base=["base.yaml"], settings={"trainer.accelerator": "cpu"}, axes={"task": task})
    assert options(study) == [
        [
            "--config=base.yaml",
            "--config=a.yaml",
            "--config=b.yaml",
            "--trainer.accelerator=cpu",
            "--model.top_k=5",
        ]
    ]


def test_union_of_grids_counts_a_command_once() -> None:
    grids = [Grid({"density": [0.5, 0.25]}), Grid({"density": [0.25, 0.125]})]
    study = Study("s", axes={"seed": [1]}, grids=grids)
    assert [words[-1] for words in options(study)] == [f"--pruning.density={d}" for d in (0.5, 0.25, 0.125)]


def test_a_grid_may_replace_an_axis() -> None:
    study = Study("s", axes={"seed": [1]}, grids=[Grid({"seed": [7]})])
    assert options(study) == [["--seed_everything=7"]]


def test_exclusions_match_labels_and_lists_of_them() -> None:
    axes = {"criterion": {"one": {}, "two": {}, "three": {}}, "seed": [1, 2]}
    study = Study(
        "s",
        axes=axes,
        exclude=[{"criterion": ["one", "two"], "seed": 2}],
        grids=[Grid(exclude=[{"seed": 1}])],
    )
    assert options(study) == [["--seed_everything=2"]]


def test_values_that_are_not_words() -> None:
    given = {"model.network.init_args.widths": [3, 2], "data.init_args.augment": False, "x": None}
    assert arguments([given]) == [
        "--model.network.init_args.widths=[3, 2]",
        "--data.init_args.augment=false",
        "--x=null",
    ]


def test_where_runs_are_and_how_they_are_found() -> None:
    (words,) = Study("s").commands()
    assert words == ["--run.root=runs/s", "--wandb.group=s", '--wandb.tags=["s"]']
    (words,) = Study("s", out="elsewhere").commands()
    assert words[0] == "--run.root=elsewhere"


@pytest.mark.parametrize("values", [3, "Weights", {"Weights": "x"}])
def test_axis_that_is_neither_list_nor_mapping(values: object) -> None:
    with pytest.raises(UserError, match="axis granularity"):
        axis_values("granularity", values)


@pytest.mark.parametrize(
    ("exclusion", "message"),
    [({"sed": 1}, "names the axis sed; the axes are seed"), ({"seed": 3}, "seed 3; its values are 1, 2")],
)
def test_misspelt_exclusion(exclusion: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(product({"seed": [1, 2]}, [exclusion]))
