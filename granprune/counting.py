"""How many parameters and multiply-accumulates a masked network really has."""

from dataclasses import dataclass

from granprune.masking import MaskedModel
from granprune.signals import trace


@dataclass(frozen=True)
class LayerCount:
    """One masked layer. Parameters are those of its weight; MACs are for one image.

    Args:
        name: The layer.
        components: Mask entries.
        kept: Mask entries that are not pruned.
        parameters: Weights.
        kept_parameters: Weights that no mask silences: neither their own, nor one right before or
            right after the layer.
        macs: Multiply-accumulates of the kept weights.
        effective_macs: Those of weights that also lie on a live path from image to output.
    """

    name: str
    components: int
    kept: int
    parameters: int
    kept_parameters: int
    macs: int
    effective_macs: int


@dataclass(frozen=True)
class Counts:
    """A masked network, shortcuts, classifier, biases and batch normalisation included.

    A bias or a batch-normalisation parameter is kept unless a gate right after it prunes its unit;
    its arithmetic is not counted in MACs.

    Args:
        layers: The masked layers, in forward order.
        parameters: Trainable parameters.
        kept_parameters: Parameters that no mask silences.
        macs: Multiply-accumulates for one image, as masked.
        effective_macs: Those of weights on a live path from image to output.
        dense_macs: Those of the network without masks.
    """

    layers: tuple[LayerCount, ...]
    parameters: int
    kept_parameters: int
    macs: int
    effective_macs: int
    dense_macs: int

    @property
    def density(self) -> float:
        """The fraction of components that are kept."""
        return sum(layer.kept for layer in self.layers) / sum(layer.components for layer in self.layers)

    @property
    def dead_layers(self) -> tuple[str, ...]:
        """Masked layers without any component left."""
        return tuple(layer.name for layer in self.layers if not layer.kept)


def count(model: MaskedModel, image_shape: tuple[int, int, int]) -> Counts:
    """Count parameters and multiply-accumulates for one image.

    A weight counts, for as many multiply-accumulates as its layer has output positions, if neither
    its own mask nor the gate right before its input or right after its output silences it. The
    *effective* count also drops weights that no live path connects to both the image and the
    output; biases and other constants do not make a path live.

    Args:
        model: The masked network; convolutions, linear layers, batch normalisation, and anything
            without parameters between them. It is left as it was.
        image_shape: Channels, height and width of an image.

    Raises:
        UserError: The network has a layer of another kind with parameters.
    """
    masked, norms = trace(model, image_shape, effective=False)
    effective, _ = trace(model, image_shape, effective=True)
    layers = tuple(
        LayerCount(
            name=name,
            components=mask.numel(),
            kept=int(mask.count_nonzero()),
            parameters=masked[name].kept.numel(),
            kept_parameters=masked[name].kept_weights(),
            macs=masked[name].macs(),
            effective_macs=effective[name].macs(),
        )
        for name, mask in model.masks.items()
    )
    return Counts(
        layers=layers,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        kept_parameters=sum(layer.kept_parameters() for layer in masked.values())
        + sum(norm.kept_parameters() for norm in norms),
        macs=sum(layer.macs() for layer in masked.values()),
        effective_macs=sum(layer.macs() for layer in effective.values()),
        dense_macs=sum(layer.dense_macs() for layer in masked.values()),
    )
