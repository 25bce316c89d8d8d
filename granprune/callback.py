"""The pruning callback: when a round is due, score, prune, rewind."""

from functools import partial
from typing import Any

from jsonargparse import lazy_instance
from jsonargparse.typing import NonNegativeInt, restricted_number_type
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer

from granprune.criteria import Criterion, Random
from granprune.criteria.base import Scores
from granprune.distributed import broadcast, check_equal
from granprune.masking import MaskedModel
from granprune.rewind import Snapshot
from granprune.schedule import Never, Schedule
from granprune.scope import Global, Scope
from granprune.scoring import check, score, warn_of_deaths
from granprune.seeding import seeded

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

    def setup(self, trainer: Trainer, module: Any, stage: str) -> None:
        if stage != "fit":
            return
        check(module.network, self.schedule, self.criterion, self.scope, self.density)
        self.schedule.check_steps(trainer.max_steps)
        module.schedule = self.schedule
        module.learning_rate = self.schedule.learning_rate(module.learning_rate)

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        if self.snapshot is None and trainer.global_step == self.schedule.rewind_step:
            self.snapshot = Snapshot.take(module.network, trainer.optimizers[0])
        # `>`: with gradient accumulation several batches see the same step.
        if self.schedule.round_at(trainer.global_step) > self.round:
            self._start_round(trainer, module)

    def on_before_optimizer_step(self, trainer: Trainer, module: Any, optimizer: Optimizer) -> None:
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

    def _start_round(self, trainer: Trainer, module: Any) -> None:
        self.round += 1
        model = module.network
        scores = self._prune(trainer, model) if trainer.is_global_zero else {}  # one rank decides for all
        broadcast(model.masks.values())
        check_equal(model.masks)
        module.masks_changed()
        if self.snapshot is not None:
            self.snapshot.restore(model, trainer.optimizers[0])
            self.criterion.forget()
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if hasattr(callback, "on_prune"):
                callback.on_prune(trainer, module, self.round, scores)

    def _prune(self, trainer: Trainer, model: MaskedModel) -> Scores:
        before, scores = {name: mask.clone() for name, mask in model.masks.items()}, {}
        for count in range(1, self.criterion.passes + 1):
            batches = trainer.datamodule.scoring_batches(self.round)  # type: ignore[attr-defined]
            scores = score(model, batches, self.criterion, seeded(self.seed, self.round))
            path = partial(self._density, share=count / self.criterion.passes)
            groups = self.scope.groups_now(model, self.density, path)
            model.set_masks(self.scope.prune(model.masks, scores, groups, self.min_components))
        warn_of_deaths(before, model.masks, self.round)
        return scores

    def _density(self, final: float, share: float) -> float:
        """The density after `share` of the way, on a logarithmic scale, through this round."""
        before, after = (self.schedule.density(r, final) for r in (self.round - 1, self.round))
        return before ** (1 - share) * after**share
