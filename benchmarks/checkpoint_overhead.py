"""What exact resume costs: ResNet-20 on images of CIFAR's size, batches of 128.

    python -m benchmarks.checkpoint_overhead --steps 30

A run is trained with a checkpoint every other step, so that both kinds of steps meet the same state of
the machine. The cost is the median time of one save, spread over the default interval, as a share of
the median step.
"""

import argparse
import inspect
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from granprune.__main__ import main as granprune
from granprune.run.checkpoint import Checkpointing
from granprune.run.record import Recorder

CONFIG = Path(__file__).parent.parent / "configs" / "resnet20-cifar10.yaml"


class Stopwatch:
    """Notes how long calls of a function take.

    Args:
        owner: The class that has it.
        name: Its name.
    """

    def __init__(self, owner: type, name: str) -> None:
        self.seconds: list[float] = []
        original = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                self.seconds.append(time.perf_counter() - start)

        setattr(owner, name, timed)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def write_images(folder: Path, train: int = 1280, test: int = 128) -> None:
    """That many random images in the place of CIFAR-10, which take as long as real ones."""
    tensors = {}
    for part, number in ("train", train), ("test", test):
        tensors[f"{part}_images"] = torch.randint(256, (number, 3, 32, 32)).to(torch.uint8)
        tensors[f"{part}_labels"] = torch.arange(number) % 10
    save_file(tensors, folder / "cifar10.safetensors")


def step_times(starts: list[float], saves: list[float]) -> list[float]:
    """Seconds of each step, less the save within every other one."""
    lengths = [after - before for before, after in zip(starts, starts[1:], strict=False)]
    saved = iter(saves)
    return [length - (next(saved, 0.0) if i % 2 else 0.0) for i, length in enumerate(lengths)]


def main() -> int:
    """Run the benchmark; 0 if the cost is at most 2 %."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=30, help="steps to take (default 30)")
    steps = parser.parse_args().steps
    starts: list[float] = []
    Recorder.on_train_batch_start = _noted(Recorder.on_train_batch_start, starts)  # type: ignore[method-assign]
    saves = Stopwatch(Checkpointing, "_save")
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        options = {
            "data.data_dir": folder,
            "run.root": folder,
            "pruning.schedule": "Iterative",  # so that the snapshot to rewind to is saved as well
            "pruning.schedule.init_args.rounds": 1,
            "pruning.schedule.init_args.steps": steps // 2,
            "trainer.val_check_interval": 10 * steps,
            "checkpoint.every_steps": 2,
            "trainer.enable_progress_bar": "false",
            "wandb.enabled": "false",
        }
        code = granprune(
            ["fit", f"--config={CONFIG}", *(f"--{key}={value}" for key, value in options.items())]
        )
    if code:
        return code
    step = statistics.median(step_times(starts, saves.seconds))
    interval = inspect.signature(Checkpointing).parameters["every_steps"].default
    cost = saves.median / (interval * step)
    print(f"a step takes {1000 * step:.1f} ms, a save {1000 * saves.median:.1f} ms (medians)")
    print(f"a save every {interval} steps costs {100 * cost:.3f} % of the training time")
    return 0 if cost <= 0.02 else 1


def _noted(original: Any, starts: list[float]) -> Any:
    def noted(*args: Any) -> None:
        starts.append(time.perf_counter())
        original(*args)

    return noted


if __name__ == "__main__":
    sys.exit(main())
