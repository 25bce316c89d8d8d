"""Scores, masks, training and dimensionality agree with the authors' released program.

The numbers in `golden/` were recorded by running it; `GRANPRUNE_GOLDEN` names another folder of the
same form.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from granprune.criteria import SNIP, Criterion, Inverted, Magnitude, Statistical
from granprune.dimensionality import dimensionality
from granprune.granularity import Channels, Kernels, Nodes, Weights
from granprune.masking import MaskedModel, evaluating
from granprune.models import DBSN, ResNet20
from granprune.pruning import prune
from granprune.schedule import Iterative
from granprune.scope import ByRole, Global, Layerwise

GOLDEN = Path(os.environ.get("GRANPRUNE_GOLDEN", Path(__file__).parent / "golden"))
MANIFEST = json.loads((GOLDEN / "manifest.json").read_text())
GRANULARITIES = {"weights": Weights, "kernels": Kernels, "channels": Channels, "nodes": Nodes}
SCOPES = {"global": Global, "layerwise": Layerwise, "residual_type": ByRole}
SCORED = [case for case in MANIFEST["cases"] if not case.endswith(("-training", "-dimensionality"))]
TRAINED = [case for case in MANIFEST["cases"] if case.endswith("-training")]
MEASURED = [case for case in MANIFEST["cases"] if case.endswith("-dimensionality")]
TOLERANCE = 1e-4  # of the largest absolute score of a layer


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(net: str, granularity: str) -> tuple[MaskedModel, dict[str, Tensor]]:
    """The recorded network, masked, and the file it came from."""
    golden = load_file(GOLDEN / f"{net}.safetensors")
    if net == "resnet20":
        network = ResNet20(MANIFEST["num_classes"], width=MANIFEST["resnet_width"])
    else:
        network = DBSN(MANIFEST["num_classes"], MANIFEST["dbsn_widths"])
    network.load_state_dict(network_state(golden))
    return MaskedModel(network, GRANULARITIES[granularity]()), golden


def network_state(golden: dict[str, Tensor]) -> dict[str, Tensor]:
    """The recorded parameters under this project's names."""
    named = {k.removeprefix("param/"): v for k, v in golden.items() if k.startswith("param/")}
    return {our_name(key): value for key, value in named.items()}


def our_name(key: str) -> str:
    parts = key.split(".")
    if parts[0] == "layers":
        parts[:3] = ["blocks", str(3 * int(parts[1]) + int(parts[2]))]
    if parts[0] == "fcs":
        last = int(parts[1]) == len(MANIFEST["dbsn_widths"])
        parts[:2] = ["head"] if last else ["hidden", parts[1]]
    names = {"conv1": "conv", "bn1": "bn", "fc": "head"}
    if parts[0] in names:
        parts[0] = names[parts[0]]
    return ".".join("shortcut" if part == "downsample" else part for part in parts)


def criterion(name: str, samples: int) -> Criterion:
    if name.startswith("snip_"):
        return SNIP(name.removeprefix("snip_"), num_samples=samples)
    if name.startswith("statistical"):
        deviation = "batch_sums" if name.endswith("batch_sums") else "samples"
        return Statistical(MANIFEST["alpha"], MANIFEST["beta"], deviation)
    assert name in ("magnitude", "mean_magnitude")
    return Magnitude()


def batches(golden: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    size = MANIFEST["statistical_batch_sums_batch_size"]
    return list(zip(golden["data/x"].split(size), golden["data/y"].split(size), strict=True))


def score(rule: Criterion, model: MaskedModel, golden: dict[str, Tensor]) -> dict[str, Tensor]:
    with evaluating(model):
        return rule(model, batches(golden), torch.Generator())


@pytest.mark.parametrize("net", ["resnet20", "dbsn"])
def test_dense_output(net):
    model, golden = build(net, "weights")
    with evaluating(model), torch.no_grad():
        torch.testing.assert_close(model(golden["data/x"]), golden["eval_logits"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", SCORED)
def test_scores(case):
    net, granularity, name = case.split("-")
    model, golden = build(net, granularity)
    recorded = load_file(GOLDEN / f"{case}.safetensors")
    scores = score(criterion(name, MANIFEST["samples"]), model, golden)
    for i, ours in enumerate(scores.values()):
        theirs = recorded[f"score/{i}"]
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE * float(theirs.abs().max()))


@pytest.mark.parametrize("inverted", [False, True], ids=["plain", "inverted"])
@pytest.mark.parametrize("case", SCORED)
def test_masks(case, inverted):
    net, granularity, name = case.split("-")
    recorded = load_file(GOLDEN / f"{case}.safetensors")
    keys = {tuple(key.split("/")[1:3]) for key in recorded if key.startswith("mask/")}
    assert keys
    for scope, rate in sorted(keys):
        model, golden = build(net, granularity)
        rule = criterion(name, MANIFEST["samples"])
        schedule = Iterative(rounds=2, steps=1)
        for round in (1, 2):
            scores = score(Inverted(rule) if inverted else rule, model, golden)
            density = schedule.density(round, float(rate))
            groups = [(names, density) for names, _ in SCOPES[scope]().groups(model, density)]
            masks = prune(model.masks, scores, groups)
            prefix = f"mask/{scope}/{rate}/{'inverted' if inverted else 'plain'}/round{round}"
            theirs = [recorded[f"{prefix}/{i}"].bool() for i in range(len(masks))]
            theirs_by_name = dict(zip(masks, theirs, strict=True))
            for names, _ in groups:
                assert_same_up_to_ties(names, masks, theirs_by_name, model.masks, scores)
            model.set_masks(theirs_by_name)  # a tie broken otherwise must not spread to round 2


def assert_same_up_to_ties(names, ours, theirs, before, scores):
    """Within a group, masks differ only among components that tie with the threshold."""
    kept, wanted, alive, flat, tolerance = (
        torch.cat([part.flatten() for part in parts])
        for parts in (
            [ours[n] for n in names],
            [theirs[n] for n in names],
            [before[n] for n in names],
            [scores[n] for n in names],
            [torch.full_like(scores[n], TOLERANCE * float(scores[n].abs().max())) for n in names],
        )
    )
    assert kept.sum() == wanted.sum()
    threshold = flat[alive & ~kept].max() if (alive & ~kept).any() else -torch.inf
    different = kept != wanted
    assert ((flat[different] - threshold).abs() <= 2 * tolerance[different]).all()


@pytest.mark.parametrize("case", TRAINED)
def test_training_under_masks(case):
    net, granularity, _ = case.split("-")
    model, golden = build(net, granularity)
    recorded = load_file(GOLDEN / f"{case}.safetensors")
    model.set_masks({n: recorded[f"mask/{i}"].bool() for i, n in enumerate(model.masks)})
    losses = train(model, golden, net)
    torch.testing.assert_close(losses, recorded["loss"].to(losses.dtype), rtol=1e-3, atol=1e-6)
    assert_same_parameters(model, network_state(recorded))
    with evaluating(model), torch.no_grad():
        logits = model(golden["data/x"])
    torch.testing.assert_close(
        logits, recorded["eval_logits"], rtol=1e-3, atol=1e-3 * float(recorded["eval_logits"].abs().max())
    )


def train(model: MaskedModel, golden: dict[str, Tensor], net: str) -> Tensor:
    sgd = net == "resnet20"
    parameters = list(model.parameters())
    optimizer = (
        torch.optim.SGD(parameters, 0.03, momentum=0.9, weight_decay=1e-4)
        if sgd
        else torch.optim.Adam(parameters, 1e-3)
    )
    size = MANIFEST["samples"] // 4
    losses = []
    model.train()
    for step in range(20):
        if sgd:
            optimizer.param_groups[0]["lr"] = 0.03 * (step + 1) / 20
        batch = slice(step % 4 * size, (step % 4 + 1) * size)
        loss = F.cross_entropy(model(golden["data/x"][batch]), golden["data/y"][batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses)


def assert_same_parameters(model: MaskedModel, theirs: dict[str, Tensor]):
    for key, value in model.dense_state_dict().items():
        layer = key.removesuffix(".weight")
        mask = 1.0
        if model.granularity.on_weight and layer in model.masks:
            mask = model.masks[layer]
        wanted = theirs[key] * mask
        torch.testing.assert_close(
            value * mask, wanted, rtol=1e-3, atol=1e-3 * max(float(wanted.abs().max()), 1e-3)
        )


@pytest.mark.parametrize("case", MEASURED)
def test_dimensionality(case):
    net, _ = case.split("-")
    model, golden = build(net, "weights")
    recorded = load_file(GOLDEN / f"{case}.safetensors")
    found = dimensionality(model, batches(golden))
    names = [list(model.layers)[i] for i in recorded["layers"].tolist()]
    assert list(found) == names
    assert [dimension.actual for dimension in found.values()] == recorded["actual"].tolist()
    ours = torch.tensor([dimension.effective for dimension in found.values()])
    torch.testing.assert_close(ours, recorded["effective"].to(ours.dtype), rtol=1e-3, atol=0)
