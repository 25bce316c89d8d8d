"""Two toy networks with integer weights, ten images, and the command line in a process of its own."""

import json
import logging
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from granprune.models import Prunable, PrunableLayer

torch.set_num_threads(1)  # small networks gain nothing from more, and test processes run side by side


class ToyMLP(Prunable):
    """4 inputs, 3 hidden ReLU units gated before the ReLU, 2 outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(4, 3)
        self.act = nn.ReLU()
        self.head = nn.Linear(3, 2)
        fill_with_integers(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.hidden(x.flatten(1))))

    def prunable_layers(self) -> list[PrunableLayer]:
        return [PrunableLayer("hidden", gate="hidden", activation="act"), PrunableLayer("head", role="head")]


class ToyConvNet(Prunable):
    """A stem, then a residual block whose first convolution is grouped; images are 2x4x4."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(4, 6, 3, padding=1, groups=2)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(6, 4, 3, padding=1, bias=False)
        self.act2 = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4, 3)
        fill_with_integers(self)
        self.bn.running_mean.fill_(1)
        self.bn.running_var.fill_(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn(self.stem(x)))
        x = self.act2(self.conv2(self.act1(self.conv1(x))) + x)
        return self.head(self.pool(x).flatten(1))

    def prunable_layers(self) -> list[PrunableLayer]:
        return [
            PrunableLayer("stem", "act", "act", "stem"),
            PrunableLayer("conv1", "act1", "act1", "inner"),
            PrunableLayer("conv2", "act2", "act2", "outer"),
        ]


def fill_with_integers(network: nn.Module) -> None:
    """Weights -3 .. 3 in an order that repeats every seven, so that no unit is like another."""
    for parameter in network.parameters():
        values = (torch.arange(parameter.numel()) * 5 + 1) % 7 - 3
        parameter.data.copy_(values.view_as(parameter))


@pytest.fixture(scope="session")
def toy_convnet() -> type[ToyConvNet]:
    """The class: a test that draws many examples needs a network for each."""
    return ToyConvNet


@pytest.fixture
def mlp() -> ToyMLP:
    return ToyMLP()


@pytest.fixture
def convnet() -> ToyConvNet:
    return ToyConvNet()


@pytest.fixture
def batches() -> list[tuple[Tensor, Tensor]]:
    """Ten 2x4x4 images of three classes, in batches of 4, 4 and 2."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(10, 2, 4, 4, generator=generator)
    return list(zip(images.split(4), (torch.arange(10) % 3).split(4), strict=True))


@pytest.fixture
def flat_batches() -> list[tuple[Tensor, Tensor]]:
    """Ten 1x2x2 images of two classes, in batches of 4, 4 and 2."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(10, 1, 2, 2, generator=generator)
    return list(zip(images.split(4), (torch.arange(10) % 2).split(4), strict=True))


@dataclass
class Ended:
    """What a command left on the terminal."""

    code: int
    out: str
    err: str


Launch = Callable[..., Ended]


@pytest.fixture(autouse=True)
def loggers() -> None:
    """Libraries that configure logging disable loggers that exist already."""
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("granprune") and isinstance(logger, logging.Logger):
            logger.disabled, logger.propagate = False, True


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    """Run `granprune WORDS` in a folder: `launch(folder, *words, VARIABLE=value)`."""
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("launcher.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={
            name: value for name, value in os.environ.items() if not name.startswith(("GRANPRUNE", "WANDB"))
        },
    )
    files = tmp_path_factory.mktemp("terminal")

    def run(folder: Path, *words: str | Path, **environment: str) -> Ended:
        out, err = files / "out", files / "err"
        job = {"words": [str(word) for word in words], "folder": str(folder), "environment": environment}
        print(json.dumps({**job, "out": str(out), "err": str(err)}), file=server.stdin, flush=True)
        if not select.select([server.stdout], [], [], 300)[0]:
            os.killpg(server.pid, 9)
            pytest.fail(f"granprune {' '.join(map(str, words))} has not ended: {err.read_text()}")
        return Ended(int(server.stdout.readline()), out.read_text(), err.read_text())

    yield run
    server.stdin.close()
    server.wait()


@pytest.fixture
def granprune(launch: Launch, tmp_path: Path) -> Launch:
    """Run `granprune WORDS` in the test's own folder."""
    return lambda *words, **environment: launch(tmp_path, *words, **environment)


@pytest.fixture(scope="session")
def small() -> Path:
    """The configuration of a run of a second: a small MLP on Digits, pruned twice."""
    return Path(__file__).with_name("small.yaml")
