"""Schedules: when a network is pruned, and to which density. Pure functions of the step.

A *round* is the training between two prunings; round 0 is dense unless pruning is at
initialization. All steps are optimizer steps.
"""

from granprune.schedule.base import Schedule
from granprune.schedule.fine_tune import FineTune
from granprune.schedule.gradual import Gradual
from granprune.schedule.iterative import Iterative
from granprune.schedule.learning_rate_rewinding import LearningRateRewinding
from granprune.schedule.single import AtInit, Never

__all__ = ["AtInit", "FineTune", "Gradual", "Iterative", "LearningRateRewinding", "Never", "Schedule"]
