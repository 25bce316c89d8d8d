"""What happens at which step of a short fit, by hand."""

import logging

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from granprune.callback import IterativePruning
from granprune.classifier import Classifier
from granprune.criteria import Criterion, Magnitude, Random, Statistical
from granprune.data import ImageDataModule
from granprune.errors import UserError
from granprune.granularity import Weights
from granprune.learning_rate import Constant, WarmupAndDrops
from granprune.masking import density, is_mask
from granprune.run.directory import RunDirectory
from granprune.run.record import Recorder
from granprune.schedule import AtInit, Iterative, Never
from granprune.scope import Global, Layerwise

RATE = 0.1


class Twelve(ImageDataModule):
    """Twelve 1x2x2 images of two classes: four batches of three."""

    name, num_classes, image_shape, mean, std, stored = "twelve", 2, (1, 2, 2), (0.5,), (0.5,), False

    def fetch(self):
        shape = (12, *self.image_shape)
        images = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        labels = torch.arange(12) % self.num_classes
        return {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}


class Twelve4x4(Twelve):
    """The same for the convolutional toy."""

    num_classes, image_shape, mean, std = 3, (2, 4, 4), (0.5, 0.5), (0.5, 0.5)


class Watcher(Callback):
    """Writes down what happens, and the state that training starts from at each step."""

    def __init__(self):
        self.events = []
        self.rates = []
        self.states = {}
        self.after_pruning = []
        self.scores = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.events.append(("train", trainer.global_step, kept(module)))
        if trainer.global_step not in self.states:
            self.states[trainer.global_step] = state(trainer, module)

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_validation_start(self, trainer, module):
        self.events.append(("evaluate", trainer.global_step, kept(module)))

    def on_prune(self, trainer, module, round, scores):
        self.events.append(("prune", trainer.global_step, round))
        self.after_pruning.append(state(trainer, module))
        self.scores.append(scores)


def kept(module):
    return sum(int(mask.sum()) for mask in module.network.masks.values())


def state(trainer, module):
    """Copies of everything that rewinding touches, and of the masks."""
    network = {key: value.clone() for key, value in module.network.state_dict().items()}
    momentum = [
        {key: value.clone() for key, value in entry.items() if value is not None}
        for entry in trainer.optimizers[0].state_dict()["state"].values()
    ]
    masks = {key: network.pop(key) for key in list(network) if is_mask(key)}
    return {"network": network, "momentum": momentum, "masks": masks}


def same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0)
    return True


@pytest.fixture
def fit(mlp, tmp_path):
    """Fit the toy network and return what was seen."""

    def run(pruning, network=mlp, data=None, learning_rate=None, accumulate=1, every=100):
        torch.manual_seed(0)
        module = Classifier(
            network,
            Weights(),
            lambda parameters: torch.optim.SGD(parameters, RATE, momentum=0.9),
            learning_rate or WarmupAndDrops(warmup=2 / 3, drops=[2 / 3]),
        )
        watcher = Watcher()
        trainer = Trainer(
            max_steps=pruning.schedule.total_steps,
            callbacks=[pruning, Recorder(RunDirectory(tmp_path), pruning, {}), watcher],
            accumulate_grad_batches=accumulate,
            accelerator="cpu",
            val_check_interval=every,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, datamodule=data or Twelve(batch_size=3))
        watcher.module = module
        return watcher

    return run


def iterative(rewind_step=0, steps=3):
    schedule = Iterative(rounds=2, steps=steps, rewind_step=rewind_step)
    return IterativePruning(schedule, Magnitude(), Global(), density=0.25)


def test_events_of_an_iterative_run(fit):
    """Of 18 weights 9 and then 4 stay: round(0.5 * 18) and round(0.75 * 18) are removed.

    Each round's evaluation sees the trained network, before the pruning that the next batch brings.
    """
    assert fit(iterative()).events == [
        ("train", 0, 18),
        ("train", 1, 18),
        ("train", 2, 18),
        ("evaluate", 3, 18),
        ("prune", 3, 1),
        ("train", 3, 9),
        ("train", 4, 9),
        ("train", 5, 9),
        ("evaluate", 6, 9),
        ("prune", 6, 2),
        ("train", 6, 4),
        ("train", 7, 4),
        ("train", 8, 4),
        ("evaluate", 9, 4),
    ]


def test_evaluations_in_between(fit):
    evaluated = [step for kind, step, _ in fit(iterative(), every=2).events if kind == "evaluate"]
    assert evaluated == [2, 3, 4, 6, 8, 9]


def test_events_of_pruning_at_init(fit, mlp):
    initial = {key: value.clone() for key, value in mlp.state_dict().items()}
    seen = fit(IterativePruning(AtInit(steps=2), Magnitude(), Global(), density=0.5))
    assert seen.events == [("prune", 0, 1), ("train", 0, 9), ("train", 1, 9), ("evaluate", 2, 9)]
    weights = seen.after_pruning[0]["network"]
    assert same(weights["network.hidden.parametrizations.weight.original"], initial["hidden.weight"])


def test_never_prunes(fit):
    kinds = [kind for kind, *_ in fit(IterativePruning(Never(steps=3))).events]
    assert kinds == ["train", "train", "train", "evaluate"]


def test_accumulation_prunes_once_a_round(fit):
    """Two batches a step: the first of a round's first step prunes, the second sees it done."""
    seen = fit(iterative(), accumulate=2)
    assert [event for event in seen.events if event[0] == "prune"] == [("prune", 3, 1), ("prune", 6, 2)]
    trained = [(step, left) for kind, step, left in seen.events if kind == "train"]
    assert trained == [
        (step, 18 if step < 3 else 9 if step < 6 else 4) for step in range(9) for _ in range(2)
    ]
    assert [step for kind, step, _ in seen.events if kind == "evaluate"] == [3, 6, 9]


@pytest.mark.parametrize(
    ("rewind_step", "factors"),
    [(0, [0, 0.5, 0.1, 0, 0.5, 0.1, 0, 0.5, 0.1]), (1, [0, 0.5, 0.1, 0.5, 0.1, 0.5, 0.1])],
)
def test_learning_rate_goes_by_the_position(fit, rewind_step, factors):
    """Rising over two of three steps, a tenth in the last; later rounds start at the rewind step."""
    assert fit(iterative(rewind_step)).rates == pytest.approx([RATE * factor for factor in factors])


@pytest.mark.parametrize("rewind_step", [0, 2])
def test_rewinding(fit, convnet, rewind_step):
    """Weights, batch-normalisation statistics and momentum return to the step; masks do not."""
    seen = fit(iterative(rewind_step, steps=4), convnet, Twelve4x4(batch_size=3), Constant())
    start = seen.states[rewind_step]
    assert len(start["momentum"]) == (0 if rewind_step == 0 else len(list(seen.module.parameters())))
    for after in seen.after_pruning:
        assert same(after["network"], start["network"])
        assert same(after["momentum"], start["momentum"])
    trained = seen.states[rewind_step + 1]
    for key in "network.bn.running_mean", "network.stem.parametrizations.weight.original":
        assert not torch.equal(trained["network"][key], start["network"][key])
    densities = [density(after["masks"]) for after in [start, *seen.after_pruning]]
    assert densities == pytest.approx([1, 0.5, 0.25], abs=0.002)
    for now, before in zip(seen.after_pruning[1:], seen.after_pruning, strict=False):
        assert all(bool((now["masks"][key] <= before["masks"][key]).all()) for key in now["masks"])


def test_scores_are_of_the_trained_network(fit, mlp):
    """Scoring comes before rewinding: magnitudes differ from those of the initial weights."""
    initial = mlp.hidden.weight.detach().abs().clone()
    scores = fit(iterative()).scores
    assert list(scores[0]) == ["hidden", "head"]
    assert not torch.equal(scores[0]["hidden"], initial)


def test_fine_tuned_weights_stay_without_a_rewind_step(fit):
    schedule = Iterative(rounds=1, steps=3)
    schedule.rewind_step = None
    seen = fit(IterativePruning(schedule, Magnitude(), Global(), density=0.5))
    after = seen.after_pruning[0]["network"]
    assert not torch.equal(after["network.head.bias"], seen.states[0]["network"]["network.head.bias"])


def test_min_components(fit):
    pruning = IterativePruning(AtInit(steps=1), Magnitude(), Global(), density=0.01, min_components=2)
    masks = fit(pruning).module.network.masks
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"hidden": 2, "head": 2}


def test_a_dying_layer_is_named_once(fit, mlp, caplog):
    """With weights a thousandth of the head's, a global ranking empties the hidden layer first."""
    mlp.hidden.weight.data /= 1000
    pruning = IterativePruning(Iterative(rounds=3, steps=2), Initial(mlp), Global(), density=0.125)
    with caplog.at_level(logging.WARNING, "granprune"):
        seen = fit(pruning)
    mask = "network.hidden.parametrizations.weight.0.mask"
    assert [int(after["masks"][mask].sum()) for after in seen.after_pruning] == [3, 0, 0]
    (message,) = [record.message for record in caplog.records]
    assert message == (
        "layer hidden died in round 2: none of its 12 components is left; "
        "--pruning.min_components 1 or another --pruning.scope, such as Layerwise, would keep it"
    )


class Initial(Criterion):
    """Magnitudes of the initial weights, so that training does not matter."""

    def __init__(self, network):
        self.scores = {
            name: getattr(network, name).weight.detach().abs().clone() for name in ("hidden", "head")
        }

    def __call__(self, model, batches, generator):
        return self.scores


def test_random_scores_follow_from_seed_and_round(fit):
    def run(seed):
        pruning = IterativePruning(Iterative(rounds=2, steps=1), Random(), Layerwise(), 0.25, seed=seed)
        return fit(pruning).scores

    first, again, other = run(1), run(1), run(2)
    assert same(first, again)
    assert not torch.equal(first[0]["head"], other[0]["head"])
    assert not torch.equal(first[0]["head"], first[1]["head"])


def test_setup_refuses(fit, mlp):
    pruning = iterative()
    trainer = Trainer(
        max_steps=5, callbacks=[pruning], accelerator="cpu", logger=False, enable_checkpointing=False
    )
    module = Classifier(mlp, Weights())
    with pytest.raises(UserError, match="trainer.max_steps is 5, but the schedule takes 9 steps"):
        trainer.fit(module, datamodule=Twelve(batch_size=3))
    with pytest.raises(UserError, match="Statistical cannot score granularity Weights"):
        fit(IterativePruning(AtInit(steps=1), Statistical()))
