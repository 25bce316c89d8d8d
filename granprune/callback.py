"""The pruning callback: when a round is due, score, prune, rewind."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from jsonargparse import lazy_instance
from jsonargparse.typing import NonNegativeInt, restricted_number_type
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer

from granprune.classifier import Classifier
from granprune.criteria import Criterion, Random
from granprune.distributed import broadcast, check_equal
from granprune.errors import UserError
from granprune.masking import MaskedModel, Masks, evaluating
from granprune.rewind import Snapshot
from granprune.schedule import Never, Schedule
from granprune.scope import Global, Scope
from granprune.seeding import seeded

log = logging.getLogger(__name__)
Density = restricted_number_type("Density", float, [(">", 0), ("<=", 1)])  # a fraction of components


class IterativePruning(Callback):
    """Prune the network at the scheduled steps and rewind it.

    Pruning happens before the first batch of a round: the evaluation and the checkpoint at the end
    of the round before then hold the trained network, and no checkpoint is ever half pruned.

    Args:
        schedule: When to prune, and how long to train: Never, AtInit, Iterative, Gradual,
            FineTune or LearningRateRewinding.
        criterion: How components are scored.
        scope: Which components are ranked together.
        density: Fraction of components kept at the end (the paper's preservation rate), 0 to 1.
        min_components: Components of every layer that always stay, so that no layer dies.
        seed: Seed of the random draws of scoring; the command line takes it from --seed_everything.
    """

    def __init__(
        self,
        schedule: Schedule = lazy_instance(Never),
        criterion: Criterion = lazy_instance(Random),
        scope: Scope = lazy_instance(Global),
        density: Density = 1.0,  # type: ignore[valid-type]
        min_components: NonNegativeInt = 0,
        seed: int = 0,
    ) -> None:
        self.schedule = schedule
        self.criterion = criterion
        self.scope = scope
        self.density: float = density
        self.min_components = min_components
        self.seed = seed
        self.round = 0
        self.snapshot: Snapshot | None = None

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        assert isinstance(module, Classifier)
        if trainer.max_steps != self.schedule.total_steps:
            raise UserError(
                f"trainer.max_steps is {trainer.max_steps}, but the schedule takes "
                f"{self.schedule.total_steps} steps; leave trainer.max_steps to the schedule"
            )
        module.schedule = self.schedule
        module.learning_rate = self.schedule.learning_rate(module.learning_rate)
        self.criterion.check(module.network)
        self.scope.groups(module.network, self.density)

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(module, Classifier)
        if self.snapshot is None and trainer.global_step == self.schedule.rewind_step:
            self.snapshot = Snapshot.take(module.network, trainer.optimizers[0])
        # `>`: with gradient accumulation several batches see the same step.
        if self.schedule.round_at(trainer.global_step) > self.round:
            self._start_round(trainer, module)

    def on_before_optimizer_step(
        self, trainer: Trainer, module: LightningModule, optimizer: Optimizer
    ) -> None:
        assert isinstance(module, Classifier)
        self.criterion.observe(module.network)

    def state_dict(self) -> dict[str, Any]:
        return {
            "round": self.round,
            "snapshot": self.snapshot and self.snapshot.state,
            "criterion": self.criterion.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.round = state["round"]
        self.snapshot = Snapshot(state["snapshot"]) if state["snapshot"] else None
        self.criterion.load_state_dict(state["criterion"])

    def _start_round(self, trainer: Trainer, module: Classifier) -> None:
        self.round += 1
        scores = {}
        before = {name: mask.clone() for name, mask in module.network.masks.items()}
        if trainer.is_global_zero:  # one rank decides, so that all agree by construction
            for count in range(1, self.criterion.passes + 1):
                scores = self._score(trainer, module.network)
                masks = self._pruned(module.network, scores, count / self.criterion.passes)
                module.network.set_masks(masks)
            self._warn_of_deaths(before, module.network.masks)
        broadcast(module.network.masks.values())
        check_equal(module.network.masks)
        if self.snapshot is not None:
            self.snapshot.restore(module.network, trainer.optimizers[0])
            self.criterion.forget()
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if hasattr(callback, "on_prune"):
                callback.on_prune(trainer, module, self.round, scores)

    def _score(self, trainer: Trainer, model: MaskedModel) -> dict[str, torch.Tensor]:
        device = next(model.parameters()).device
        batches = (
            (images.to(device), labels.to(device))
            for images, labels in trainer.datamodule.scoring_batches(self.round)  # type: ignore[attr-defined]
        )
        generator = seeded(self.seed, self.round)
        # Hooks and per-sample masks would make a compiled network compile again.
        with evaluating(model), torch.compiler.set_stance("force_eager"):
            scores = self.criterion(model, batches, generator)
        _check_scores(scores, model.masks, type(self.criterion).__name__)
        return scores

    def _warn_of_deaths(self, before: Masks, after: Masks) -> None:
        for name, mask in after.items():
            if before[name].any() and not mask.any():
                log.warning(
                    "layer %s died in round %d: none of its %s components is left; "
                    "--pruning.min_components 1 or another --pruning.scope, such as Layerwise, would keep it",
                    name,
                    self.round,
                    f"{mask.numel():,}",
                )

    def _pruned(
        self, model: MaskedModel, scores: dict[str, torch.Tensor], share: float
    ) -> dict[str, torch.Tensor]:
        """The masks after `share` of the way, on a logarithmic scale, from the round before to this one."""

        def path(final: float) -> float:
            before, after = (self.schedule.density(r, final) for r in (self.round - 1, self.round))
            return before ** (1 - share) * after**share

        groups = self.scope.groups_now(model, self.density, path)
        return self.scope.prune(model.masks, scores, groups, self.min_components)


def _check_scores(scores: Any, masks: Masks, criterion: str) -> None:
    """Refuse what a criterion of the user's own may get wrong."""
    if not isinstance(scores, Mapping) or scores.keys() != masks.keys():
        raise UserError(f"criterion {criterion} must return a score tensor for each of {', '.join(masks)}")
    for name, mask in masks.items():
        shape = tuple(scores[name].shape)
        if shape != tuple(mask.shape):
            raise UserError(
                f"criterion {criterion} gives layer {name} scores of shape {shape}; "
                f"expected {tuple(mask.shape)}"
            )
        if scores[name].isnan().any():
            raise UserError(f"criterion {criterion} gives layer {name} scores that are not a number (NaN)")
