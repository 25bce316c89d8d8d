"""A network's graph, and what its nodes do."""

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from granprune.errors import UserError

LAYERS = nn.Conv2d | nn.Linear
NORMS = {"batchnorm1d", "batchnorm2d", "syncbatchnorm"}
ADDITIONS = {"add", "iadd"}
ACTIVATIONS = {
    *("relu", "relu6", "leakyrelu", "leaky_relu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish"),
    *("tanh", "hardtanh", "hardswish", "softplus", "sigmoid", "hardsigmoid"),
}
NEUTRAL = {"dropout", "dropout1d", "dropout2d", "feature_dropout", "identity"}


class Tracer(fx.Tracer):
    """Looks into modules that hold layers or batch normalisation; others are left whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        inside = any(isinstance(part, LAYERS | _BatchNorm) for part in m.modules())
        return not inside or super().is_leaf_module(m, module_qualified_name)


def trace(network: nn.Module) -> fx.GraphModule:
    """The network with its calls as a graph; it shares the modules.

    Raises:
        UserError: The calls depend on the data or on the mode, or the output is no tensor.
    """
    modes = {module: module.training for module in network.modules()}
    graphs = [_graph(network.train(training)) for training in (True, False)]
    for module, training in modes.items():
        module.training = training
    name = type(network).__name__
    if str(graphs[0]) != str(graphs[1]):
        raise UserError(
            f"cannot trace {name}: its forward differs between training and evaluation; put what differs "
            "into a module of its own, or give the network a method prunable_layers()"
        )
    if not isinstance(graphs[0].output_node().args[0], fx.Node):
        raise UserError(f"cannot trace {name}: its forward returns more than one tensor")
    return fx.GraphModule(network, graphs[0], class_name=name)


def operation(node: fx.Node, network: nn.Module) -> str:
    """What a node does, as a lower-case name: of a module's class, a function or a tensor's method."""
    if node.op == "call_module":
        return type(network.get_submodule(str(node.target))).__name__.lower()
    if node.op == "call_function":
        return getattr(node.target, "__name__", "").rstrip("_")
    return str(node.target).rstrip("_") if node.op == "call_method" else node.op


def _graph(network: nn.Module) -> fx.Graph:
    try:
        return Tracer().trace(network)
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"cannot trace {type(network).__name__}: {str(error).splitlines()[0]}; give the network a "
            "method prunable_layers()"
        ) from error
