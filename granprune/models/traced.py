"""Any network: its layers, and where to mask their units, are found in its graph."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, fx, nn

from granprune.errors import UserError
from granprune.models.base import Prunable, PrunableLayer
from granprune.models.tracing import ACTIVATIONS, ADDITIONS, LAYERS, NEUTRAL, NORMS, operation, trace


class Traced(Prunable):
    """A network that says nothing about itself: all its convolutions and linear layers are prunable.

    The layers run as before, called from a traced copy of the forward pass; it has an identity as
    the gate of each layer, which takes the place of functional activations and additions that no
    mask could be put on. The gate comes after the batch normalisation, addition and activation
    that follow the layer. Of layers that meet in one addition, the first has the gate. Without one,
    so never pruned as units, are the others (shortcuts), layers that nothing but the output comes
    after, and layers that run more than once.

    Args:
        network: The network, by its import path; it must be traceable by `torch.fx`.
        dense: Layers that always stay dense: names or regular expressions, as in `fc` or
            `.*downsample.*`.

    Raises:
        UserError: The network cannot be traced, or a name fits no layer.
    """

    def __init__(self, network: nn.Module, dense: Sequence[str] = ()) -> None:
        super().__init__()
        self.network = trace(network)
        found = _find_layers(self.network)
        for pattern in dense:
            if not any(re.fullmatch(pattern, layer.name) for layer in found):
                names = ", ".join(layer.name for layer in found)
                raise UserError(f"model.network.dense: no layer is called {pattern!r}; there are {names}")
        self._layers = [
            self._gated(layer)
            for layer in found
            if not any(re.fullmatch(pattern, layer.name) for pattern in dense)
        ]
        self.network.recompile()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def prunable_layers(self) -> list[PrunableLayer]:
        """All convolutions and linear layers that are not kept dense."""
        return list(self._layers)

    def _gated(self, layer: "_Layer") -> PrunableLayer:
        gate = None if layer.gate is None else self._add_gate(layer.name, layer.gate)
        norm = layer.norm and f"network.{layer.norm}"
        return PrunableLayer(f"network.{layer.name}", gate, gate, layer.role, norm)

    def _add_gate(self, layer: str, place: fx.Node) -> str:
        name = f"gates.{layer.replace('.', '_')}"
        self.network.add_submodule(name, nn.Identity())
        with self.network.graph.inserting_after(place):
            gate = self.network.graph.call_module(name, (place,))
        place.replace_all_uses_with(gate, delete_user_cb=lambda user: user is not gate)
        return f"network.{name}"


@dataclass
class _Layer:
    name: str
    gate: fx.Node | None  # whose value a unit's mask multiplies
    role: str
    norm: str | None


@dataclass
class _Path:
    """What follows a layer up to where its units can be masked."""

    place: fx.Node
    norm: str | None = None
    added: bool = False


def _find_layers(network: fx.GraphModule) -> list[_Layer]:
    nodes = [node for node in network.graph.nodes if _is_layer(node, network)]
    runs = [node.target for node in nodes]
    paths = {node: _follow(node, network) for node in nodes if runs.count(node.target) == 1}
    inner = "inner" if any(path.added for path in paths.values()) else "hidden"
    feeding = _feeding(nodes, network)
    layers: dict[str, _Layer] = {}
    taken: set[fx.Node] = set()
    for node in nodes:
        path = paths.get(node, _Path(node))
        role = "outer" if path.added else inner
        if node is nodes[0]:
            role = "stem"
        elif node not in feeding:
            role = "head"
        elif path.place in taken:
            role = "shortcut"
        gated = node in paths and node in feeding and path.place not in taken
        name = str(node.target)
        layers.setdefault(name, _Layer(name, path.place if gated else None, role, path.norm))
        taken.add(path.place)
    return list(layers.values())


def _follow(node: fx.Node, network: fx.GraphModule) -> _Path:
    """Go on from a layer through what belongs to it, as long as nothing else uses the value."""
    path = _Path(node)
    while len(path.place.users) == 1:
        user = next(iter(path.place.users))
        kind = operation(user, network)
        if kind in NORMS and path.place is node:
            path.norm = str(user.target)
        elif kind in ADDITIONS and not path.added and len(user.all_input_nodes) == 2:
            path.added = True
        elif kind not in NEUTRAL | ACTIVATIONS:
            break
        path.place = user
        if kind in ACTIVATIONS:
            break
    return path


def _feeding(layers: Sequence[fx.Node], network: fx.GraphModule) -> set[fx.Node]:
    """The nodes that another layer comes after."""
    found: set[fx.Node] = set()
    for node in reversed(network.graph.nodes):
        if any(user in layers or user in found for user in node.users):
            found.add(node)
    return found


def _is_layer(node: fx.Node, network: fx.GraphModule) -> bool:
    return node.op == "call_module" and isinstance(network.get_submodule(str(node.target)), LAYERS)
