"""Criteria: how much each component matters."""

from granprune.criteria.base import Batches, Criterion, Scores
from granprune.criteria.batch_norm_scale import BatchNormScale
from granprune.criteria.from_run import FromRun
from granprune.criteria.gradient_magnitude import GradientMagnitude
from granprune.criteria.grasp import GraSP
from granprune.criteria.inverted import Inverted
from granprune.criteria.magnitude import Magnitude
from granprune.criteria.movement_sum import MovementSum
from granprune.criteria.random import Random
from granprune.criteria.snip import SNIP
from granprune.criteria.statistical import Statistical
from granprune.criteria.synflow import SynFlow
from granprune.criteria.taylor import Taylor

__all__ = [
    "SNIP",
    "BatchNormScale",
    "Batches",
    "Criterion",
    "FromRun",
    "GraSP",
    "GradientMagnitude",
    "Inverted",
    "Magnitude",
    "MovementSum",
    "Random",
    "Scores",
    "Statistical",
    "SynFlow",
    "Taylor",
]
