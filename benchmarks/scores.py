"""SNIP with per-sample magnitudes from batched passes against one sample at a time."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.machine import peak
from benchmarks.measure import Row, alternate, faster
from granprune.allocator import keep_freed_memory
from granprune.counting import count
from granprune.criteria import SNIP
from granprune.criteria.base import Scores
from granprune.errors import UserError
from granprune.granularity import Channels, Granularity, Kernels, Nodes, Weights
from granprune.masking import MaskedModel, evaluating
from granprune.models import DBSN, Prunable, ResNet20
from granprune.scoring import score

PASSES = {True: 3, False: 2}  # forward passes' worth of work: units need no gradient of weights


@dataclass(frozen=True)
class Size:
    """How much to measure.

    Args:
        images: Scored by ours in a turn.
        single: Of these, scored by the rival in a turn.
        repeats: Turns of each.
        batch: Images of one batch of ours.
    """

    images: int = 2000
    single: int = 100
    repeats: int = 5
    batch: int = 128


QUICK = Size(images=8, single=2, repeats=2, batch=4)


def snip(quick: bool) -> list[Row]:
    """Weights, kernels and channels of ResNet-20, nodes of the MLP."""
    wanted = QUICK if quick else Size()
    keep_freed_memory()  # as runs do
    torch.manual_seed(0)
    rows = []
    for granularity in Weights(), Kernels(), Channels():
        rows.append(_row(ResNet20(), granularity, (3, 32, 32), wanted, quick))
    return [*rows, _row(DBSN(), Nodes(), (1, 28, 28), wanted, quick)]


def one_at_a_time(model: MaskedModel, images: Tensor, labels: Tensor) -> Scores:
    """Mean magnitude of each sample's gradient with respect to the masks: the definition, word by word."""
    sums = {name: torch.zeros(mask.shape) for name, mask in model.masks.items()}
    with evaluating(model), model.soft_masks() as masks:
        for image, label in zip(images.split(1), labels.split(1), strict=True):
            loss = F.cross_entropy(model(image), label)
            gradients = torch.autograd.grad(loss, list(masks.values()))
            for name, gradient in zip(masks, gradients, strict=True):
                sums[name] += gradient.abs()
    return {name: total / len(images) for name, total in sums.items()}


def _row(
    network: Prunable, granularity: Granularity, shape: tuple[int, int, int], wanted: Size, quick: bool
) -> Row:
    model = MaskedModel(network, granularity).to(memory_format=torch.channels_last)
    images, labels = torch.randn(wanted.images, *shape), torch.randint(10, (wanted.images,))
    few = images[: wanted.single], labels[: wanted.single]

    def ours(model: MaskedModel, images: Tensor, labels: Tensor) -> Scores:
        batches = zip(images.split(wanted.batch), labels.split(wanted.batch), strict=True)
        return score(model, batches, SNIP("per_sample", len(images)), torch.Generator())

    # In float64: in float32 batches round differently, which moves activations across the ReLU's kink.
    exact, doubles = copy.deepcopy(model).double(), (few[0].double(), few[1])
    _compare(ours(exact, *doubles), one_at_a_time(exact, *doubles))
    ours(model, *few)  # to warm up
    pairs = alternate(lambda: ours(model, images, labels), lambda: one_at_a_time(model, *few), wanted.repeats)
    pairs = pairs.scaled(1, wanted.images / wanted.single)
    passes = PASSES[granularity.on_weight]
    operations = passes * 2 * wanted.images * count(model, shape).dense_macs
    floor = operations / peak(quick)
    kind = type(granularity).__name__.lower()
    note = (
        f"the rival scores {wanted.single} of {wanted.images} images, its time is scaled; floor: {passes} x "
        f"forward = {operations / 1e9:,.3g} GFLOP"
    )
    return faster(f"snip-{kind}", "s", pairs, 5.0, floor, note)


def _compare(ours: Scores, rival: Scores) -> None:
    """Raises: UserError: The two do not compute the same."""
    for name, wanted in rival.items():
        if not torch.allclose(
            ours[name].double(), wanted.double(), rtol=1e-3, atol=1e-5 * float(wanted.max())
        ):
            raise UserError(f"SNIP scores of layer {name} differ from those of one sample at a time")
