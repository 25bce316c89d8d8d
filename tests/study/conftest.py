"""A study of runs of a second each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from granprune.study.plan import Study
from granprune.study.resolve import FitParser

SMALL = Path(__file__).parent.parent / "small.yaml"


@pytest.fixture(scope="session")
def parser() -> FitParser:
    return FitParser()


@pytest.fixture
def small_study(tmp_path: Path) -> Callable[..., Study]:
    """Makes a study of the smallest runs, with other values where given."""

    def make(**changes: Any) -> Study:
        settings = {"base": [str(SMALL)], "out": str(tmp_path / "runs"), "axes": {"density": [0.5, 0.25]}}
        return Study(**{"name": "little", **settings, **changes})

    return make
