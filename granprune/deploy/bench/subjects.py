"""The pruned networks that are timed: those of runs, or random ones."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from granprune.counting import Counts, count
from granprune.deploy.bench.forms import plain
from granprune.deploy.storage import NETWORKS, arguments
from granprune.errors import UserError
from granprune.granularity import GRANULARITIES, OnUnit, Weights
from granprune.masking import MaskedModel, Masks
from granprune.run.provenance import caveat
from granprune.run.restore import read_result, restore

SHAPES = {"ResNet20": (3, 32, 32), "DBSN": (1, 28, 28)}


@dataclass(frozen=True)
class Subject:
    """A pruned network.

    Args:
        name: What rows about it are called.
        model: The network with its masks.
        images: (N, C, H, W) as many as the largest batch.
        criterion: How it was pruned, and over which scope.
        task: What it was trained on; None if it was not.
        run: The run's name.
        accuracy: On the test images, 0 to 1; None for an untrained network.
        data: What must be known about the images it was trained on, if anything.
    """

    name: str
    model: MaskedModel
    images: Tensor
    criterion: str = "Random"
    task: str | None = None
    run: str | None = None
    accuracy: float | None = None
    data: str | None = None

    @property
    def architecture(self) -> str:
        """What the dense network is, in words; equal for networks that compare."""
        return architecture(self.model)

    @property
    def granularity(self) -> str:
        """The granularity's name."""
        return type(self.model.granularity).__name__

    @cached_property
    def counts(self) -> Counts:
        """Parameters and multiply-accumulates."""
        channels, height, width = self.images.shape[1:]
        return count(self.model, (channels, height, width))


def architecture(model: MaskedModel) -> str:
    """The dense network's class and constructor arguments, e.g. `ResNet20(num_classes=10, width=16)`."""
    given = ", ".join(f"{name}={value}" for name, value in arguments(model.network).items())
    return f"{type(model.network).__name__}({given})"


def unpruned(subject: Subject) -> Subject:
    """The subject's dense network."""
    model = MaskedModel(plain(subject.model), Weights()).eval()
    return Subject("dense", model, subject.images, task=subject.task)


def of_run(run: str, images: int, data_dir: str | None = None) -> Subject:
    """The network of a finished run, with test images.

    Raises:
        UserError: The run is not finished, or no network that can be deployed.
    """
    result = read_result(run)
    model, data = restore(run, data_dir)
    arguments(model.network)  # refuses others
    data.prepare_data()
    data.setup("test")
    random = result["criterion"] == "Random"
    method = "Random" if random else f"{result['criterion']}, {result['scope']}"
    about = f"{result['granularity']} {result['final_density']:.3g} {method}"
    return Subject(
        name=f"{about} seed {result['seed']}",
        model=model,
        images=_first(data.test_dataloader(), images),
        criterion=method,
        task=result["task"],
        run=result["name"],
        accuracy=result["test_accuracy"],
        data=caveat(result.get("data", {})),
    )


def random_subjects(network: str, granularity: str, densities: Sequence[float], images: int) -> list[Subject]:
    """Untrained networks pruned at random, equally in each layer.

    Args:
        network: ResNet20 or DBSN.
        granularity: Weights, Kernels, Channels or Nodes.
        densities: One subject each. Weights and kernels of the stem stay dense.
        images: Random images to make.

    Raises:
        UserError: There is no such network or granularity, or they do not go together.
    """
    kinds = {kind.__name__: kind for kind in GRANULARITIES}
    for option, name, known in ("--network", network, NETWORKS), ("--granularity", granularity, kinds):
        if name not in known:
            raise UserError(f"{option} {name}: possible are {', '.join(known)}")
    subjects = []
    for density in densities:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = MaskedModel(NETWORKS[network](), kinds[granularity]()).eval()
            model.set_masks(random_masks(model, density))
            pixels = torch.randn(images, *SHAPES[network])
        subjects.append(Subject(f"{granularity} {density:g}", model, pixels))
    return subjects


def random_masks(model: MaskedModel, density: float) -> Masks:
    """Masks of one density in each layer.

    Units of a random network are as good as one another, so of channels and nodes the first ones stay:
    the blocks of a residual stream then agree, and what is left is a narrower network.
    """
    masks = {}
    for name, mask in model.masks.items():
        units = isinstance(model.granularity, OnUnit)
        if model.layers[name].role == "stem" and not units:
            masks[name] = torch.ones_like(mask)
            continue
        order = torch.arange(mask.numel()) if units else torch.randperm(mask.numel())
        masks[name] = (order < round(density * mask.numel())).view_as(mask)
    return masks


def _first(batches: Iterable[tuple[Tensor, Tensor]], count: int) -> Tensor:
    """As many images, over again if there are fewer."""
    images: list[Tensor] = []
    for batch, _ in batches:
        images.append(batch.cpu().contiguous())
        if sum(map(len, images)) >= count:
            break
    found = torch.cat(images)
    return found.repeat(math.ceil(count / len(found)), 1, 1, 1)[:count]
