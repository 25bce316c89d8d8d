"""The forms a network can run in: three networks, each by several engines."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn

from granprune.deploy.compact import compact
from granprune.deploy.network import Masked, SparseNetwork
from granprune.deploy.storage import arguments
from granprune.granularity import OnUnit
from granprune.masking import MaskedModel
from granprune.models import Prunable

Call = Callable[[Tensor], Tensor]
Variant = Literal["dense", "pruned", "compact"]


@dataclass(frozen=True)
class Engine:
    """Something that runs networks.

    Args:
        library: The process it has for itself: two thread pools in one disturb each other.
        build: Prepares a network for batches like the given one, on so many threads.
        packages: What must be installed.
        tolerance: The largest relative error that counts as correct.
    """

    library: str
    build: Callable[[Any, Tensor, int], Call]
    packages: tuple[str, ...] = ()
    tolerance: float = 1e-4

    @property
    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [name for name in self.packages if find_spec(name) is None]


def eager(network: nn.Module, x: Tensor, threads: int) -> Call:
    """The module as it is."""
    torch.set_num_threads(threads)
    return network


def compiled(network: nn.Module, x: Tensor, threads: int) -> Call:
    """By `torch.compile`, its weights frozen into the code."""
    torch.set_num_threads(threads)
    torch._dynamo.config.fail_on_recompile_limit_hit = True  # else it would run eagerly and not say so
    torch._dynamo.config.recompile_limit = 64
    return torch.compile(network, dynamic=False, options={"freezing": True, "cpp.threads": threads})


def onnx_runtime(network: nn.Module, x: Tensor, threads: int) -> Call:
    """By ONNX Runtime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    program: Any = torch.onnx.export(network, (x,), dynamo=True, verbose=False)
    data = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def open_vino(precision: str) -> Callable[[nn.Module, Tensor, int], Call]:
    """By OpenVINO, whose own choice of a number format is overruled: f32 or bf16."""

    def build(network: nn.Module, x: Tensor, threads: int) -> Call:
        import openvino

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # OpenVINO uses torch.jit
            model = openvino.convert_model(network, example_input=x, input=tuple(x.shape))
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        request = openvino.compile_model(model, "CPU", settings).create_infer_request()
        shared = {"share_inputs": True, "share_outputs": True}
        return lambda x: torch.from_numpy(request.infer([x.numpy()], **shared)[0])

    return build


def sparse_engine(model: MaskedModel, x: Tensor, threads: int) -> Call:
    """By this package's own engine."""
    torch.set_num_threads(threads)
    return SparseNetwork(model)


def masked_dense(model: MaskedModel, x: Tensor, threads: int) -> Call:
    """The masked model as it was trained."""
    torch.set_num_threads(threads)
    return Masked(model)


OWN = "sparse engine"
BFLOAT16 = "OpenVINO bfloat16"
ENGINES = {
    "torch eager": Engine("torch", eager),
    "torch.compile": Engine("torch", compiled),
    "ONNX Runtime": Engine("onnxruntime", onnx_runtime, ("onnx", "onnxscript", "onnxruntime")),
    "OpenVINO": Engine("openvino", open_vino("f32"), ("openvino",)),
    BFLOAT16: Engine("openvino", open_vino("bf16"), ("openvino",), tolerance=0.05),
    OWN: Engine("engine", sparse_engine),
    "masked dense": Engine("torch", masked_dense),
}
DENSE = ["torch eager", "torch.compile", "ONNX Runtime", "OpenVINO", BFLOAT16, OWN]
PRUNED = [OWN, "masked dense"]
COMPACT = ["torch eager", "torch.compile", "ONNX Runtime", "OpenVINO"]


def forms(model: MaskedModel) -> list[tuple[Variant, str]]:
    """The forms of a pruned network: pairs of network and engine."""
    compacted = COMPACT if isinstance(model.granularity, OnUnit) else []
    return [*(("pruned", name) for name in PRUNED), *(("compact", name) for name in compacted)]  # type: ignore[list-item]


def network_of(variant: Variant, engine: str, model: MaskedModel) -> nn.Module:
    """The network that an engine is given: the model itself, without pruned parts, or without masks."""
    if variant == "compact":
        return compact(model, fold=True).eval()
    return plain(model) if variant == "dense" and engine != OWN else model


def plain(model: MaskedModel) -> Prunable:
    """The network without masks, in evaluation mode."""
    network = type(model.network)(**arguments(model.network))
    network.load_state_dict(model.dense_state_dict())
    return network.eval()
