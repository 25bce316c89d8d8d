"""Scores of a masked network's components, checked, and a word when a layer dies."""

import logging
from collections.abc import Mapping
from typing import Any

import torch

from granprune.criteria import Criterion
from granprune.criteria.base import Batches, Scores
from granprune.errors import UserError
from granprune.masking import MaskedModel, Masks, evaluating
from granprune.schedule import Schedule
from granprune.scope import Scope

log = logging.getLogger(__name__)


def check(model: MaskedModel, schedule: Schedule, criterion: Criterion, scope: Scope, density: float) -> None:
    """Refuse a combination without meaning, before anything is trained.

    Raises:
        UserError: It says what is possible.
    """
    schedule.check(density)
    criterion.check(model)
    scope.groups(model, density)


def score(model: MaskedModel, batches: Batches, criterion: Criterion, generator: torch.Generator) -> Scores:
    """Score every component of the network as it is now, in evaluation mode.

    Args:
        model: The masked network.
        batches: Images and labels of the training set, on any device.
        criterion: How components are scored.
        generator: The source of its random draws.

    Returns:
        Layer name -> scores of the mask's shape; higher is kept.

    Raises:
        UserError: The criterion gives something else.
    """
    device = next(model.parameters()).device
    here = ((images.to(device), labels.to(device)) for images, labels in batches)
    # Hooks and per-sample masks would make a compiled network compile again.
    with evaluating(model), torch.compiler.set_stance("force_eager"):
        scores = criterion(model, here, generator)
    _check_scores(scores, model.masks, type(criterion).__name__)
    return scores


def warn_of_deaths(before: Masks, after: Masks, round: int) -> None:
    """Name the layers of which a round has left nothing."""
    for name, mask in after.items():
        if before[name].any() and not mask.any():
            log.warning(
                "layer %s died in round %d: none of its %s components is left; "
                "--pruning.min_components 1 or another --pruning.scope, such as Layerwise, would keep it",
                name,
                round,
                f"{mask.numel():,}",
            )


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
