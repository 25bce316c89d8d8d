"""Binary masks on an unmodified network."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from granprune.errors import UserError
from granprune.granularity import GRANULARITIES, Granularity, OnWeight
from granprune.mask import Mask, attach, detach, find
from granprune.models.base import Prunable, PrunableLayer

Masks = dict[str, Tensor]  # layer name -> bool tensor, True = kept; scores have the same keys and shapes


class MaskedModel(nn.Module):
    """A network seen as a set of prunable components; the network itself is not rewritten.

    Args:
        network: Any network that names its prunable layers.
        granularity: What one mask entry removes.

    Raises:
        UserError: The network has no layer that can be pruned at this granularity.
    """

    def __init__(self, network: Prunable, granularity: Granularity) -> None:
        super().__init__()
        self.network = network
        self.granularity = granularity
        self.layers: dict[str, PrunableLayer] = {
            layer.name: layer
            for layer in network.prunable_layers()
            if granularity.applies(network.get_submodule(layer.name), layer)
        }
        if not self.layers:
            raise UserError(_no_layer(network, granularity))
        for layer in self.layers.values():
            attach(network, layer, granularity)
        self.stand_in: Callable[[Tensor], Tensor] | None = None  # computes the same; taken in training

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.stand_in is not None:
            return self.stand_in(x)
        return self.network(x)

    @property
    def masks(self) -> Masks:
        """The live mask of each masked layer, in forward order."""
        return {name: self._mask(name).mask for name in self.layers}

    def set_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Copy masks in place: compiled graphs and DDP keep pointing at the same tensors."""
        for name, mask in self.masks.items():
            mask.copy_(masks[name])

    def module(self, name: str) -> nn.Module:
        """The convolution or linear layer of that name."""
        return self.network.get_submodule(name)

    def weights(self) -> dict[str, Tensor]:
        """The raw weight of each masked layer, pruned entries included."""
        return {name: raw_weight(self.module(name)) for name in self.layers}

    def weight_masks(self) -> Masks:
        """The mask of every single weight, of the weight's shape; none where masks act on units."""
        if not isinstance(self.granularity, OnWeight):
            return {}
        weights = self.weights()
        return {n: self.granularity.expand(mask, weights[n].shape) for n, mask in self.masks.items()}

    @contextmanager
    def observe(self) -> Iterator[dict[str, Tensor]]:
        """Within the block, each forward pass leaves the layers' activations in the yielded dict."""
        seen: dict[str, Tensor] = {}

        def keep(name: str):
            return lambda module, inputs, output: seen.__setitem__(name, output)

        handles = [
            self.network.get_submodule(layer.activation).register_forward_hook(keep(name))
            for name, layer in self.layers.items()
            if layer.activation is not None
        ]
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def soft_masks(self, samples: int | None = None, dtype: torch.dtype | None = None) -> Iterator[Masks]:
        """Within the block, masks are float tensors that require gradients.

        Args:
            samples: Batch size B of the forward passes inside the block, for one copy a sample,
                which only masks on activations can have; None: all samples share one.
            dtype: Of the soft masks; that of the parameters if not given.

        Yields:
            Layer name -> tensor of shape (B, *mask.shape), or of the mask's shape.
        """
        dtype = dtype or next(self.parameters()).dtype
        copies = () if samples is None else (samples,)
        soft = {
            name: mask.to(dtype).expand(*copies, *mask.shape).clone().requires_grad_()
            for name, mask in self.masks.items()
        }
        try:
            for name, value in soft.items():
                self._mask(name).soft = value
            yield soft
        finally:
            for name in soft:
                self._mask(name).soft = None

    def dense_state_dict(self) -> dict[str, Tensor]:
        """The network's state under its own names, without masks: raw weights, biases, statistics."""
        return {
            key.replace("parametrizations.weight.original", "weight"): value
            for key, value in self.network.state_dict().items()
            if not is_mask(key)
        }

    def __reduce__(self) -> Any:
        # Parametrized modules refuse to be pickled, so the plain network travels, for ddp_spawn.
        plain = copy.deepcopy(self.network)
        for layer in self.layers.values():
            detach(plain, layer, self.granularity)
        self.__dict__["_travelling"] = plain  # its shared memory must outlive the start of the process
        return _attached, (plain, self.granularity, self.masks, self.training)

    def _mask(self, name: str) -> Mask:
        # Looked up, not stored twice: a deep copy then owns its masks.
        return find(self.network, self.layers[name], self.granularity)


def density(masks: Mapping[str, Tensor]) -> float:
    """The fraction of components that are kept, over all layers.

    >>> density({"a": torch.tensor([True, False]), "b": torch.tensor([True, True])})
    0.75
    """
    kept = sum(int(torch.count_nonzero(mask)) for mask in masks.values())
    return kept / sum(mask.numel() for mask in masks.values())


def is_mask(key: str) -> bool:
    """Whether a state_dict key names a mask."""
    return key.endswith(".mask")


def raw_weight(layer: nn.Module) -> Tensor:
    """A layer's weight before masking."""
    module: Any = layer
    masked = nn.utils.parametrize.is_parametrized(layer, "weight")
    return module.parametrizations.weight.original if masked else module.weight


def _attached(network: Prunable, granularity: Granularity, masks: Masks, training: bool) -> MaskedModel:
    model = MaskedModel(network, granularity)
    model.training = training
    model.set_masks(masks)
    return model


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; each module's own mode comes back afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _no_layer(network: Prunable, granularity: Granularity) -> str:
    layers = network.prunable_layers()
    possible = [
        kind.__name__
        for kind in GRANULARITIES
        if any(kind().applies(network.get_submodule(layer.name), layer) for layer in layers)
    ]
    return (
        f"{type(network).__name__} has no layer to prune at granularity {type(granularity).__name__}; "
        f"possible are {', '.join(possible) or 'none'}"
    )
