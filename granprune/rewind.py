"""The state that a round starts from, kept and brought back."""

import copy
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from granprune.masking import is_mask


class Snapshot:
    """Weights, batch-normalisation statistics and optimizer state of one step; never masks.

    The learning rate needs no place here: it is a pure function of the step.

    Args:
        state: What `take` or `Snapshot.state` of an earlier process gave.
    """

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    @classmethod
    def take(cls, network: nn.Module, optimizer: Optimizer) -> "Snapshot":
        """Copy the present state."""
        tensors = {k: v.detach().clone() for k, v in network.state_dict().items() if not is_mask(k)}
        return cls({"network": tensors, "optimizer": copy.deepcopy(optimizer.state_dict())})

    def restore(self, network: nn.Module, optimizer: Optimizer) -> None:
        """Put the copied state back in place; masks stay as they are."""
        live = network.state_dict()
        with torch.no_grad():
            for key, value in self.state["network"].items():
                live[key].copy_(value)
        # load_state_dict keeps references to what it is given, and training would change the snapshot.
        optimizer.load_state_dict(copy.deepcopy(self.state["optimizer"]))
