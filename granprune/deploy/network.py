"""A pruned network that runs in the engine: tensors in, tensors out."""

import ctypes
import itertools
import threading
import weakref
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from granprune.deploy.engine import engine
from granprune.deploy.layers import Parts, layers_of
from granprune.deploy.plan import Plan, plan_batch, plan_images, plan_vector
from granprune.errors import UserError
from granprune.masking import MaskedModel, evaluating
from granprune.native import level

FEW = 4  # below this many images a linear network runs them one by one


class Masked:
    """The masked network as it is, where the engine cannot be built: same output, dense speed."""

    form = "masked dense"

    def __init__(self, model: MaskedModel) -> None:
        self._model = model

    def __call__(self, x: Tensor) -> Tensor:  # (B, ...) -> (B, outputs)
        """The network's output."""
        with torch.no_grad(), evaluating(self._model):
            return self._model(x)


class SparseNetwork:
    """A pruned network compiled to tables; call it like the network, from any thread.

    It takes and returns float32 CPU tensors and computes no gradients. Threads follow
    `torch.get_num_threads()`, over the images of a batch.

    Args:
        model: A ResNet20 or DBSN with its masks, or its parts; batch normalisation takes stored statistics.
        instructions: Instruction set of the engine, a key of `native.LEVELS`; None for the best one.

    Raises:
        CompilerMissing: The engine cannot be built; run the masked network instead.
        UserError: The network is of a kind that the engine does not know.
    """

    form = "sparse engine"

    def __init__(self, model: MaskedModel | Parts, instructions: str | None = None) -> None:
        self.instructions = instructions or level()
        self._engine = engine(self.instructions)
        self._layers = layers = layers_of(model)
        self.outputs, self.inputs = len(layers[-1].bias), layers[0].weight.shape[1]
        self._linear = all(layer.weight.shape[-1] == 1 for layer in layers)
        self._programs: dict[tuple[int, ...], Program] = {}
        self._lock = threading.Lock()
        self.id = next(_ids)
        _networks[self.id] = self

    def __call__(self, x: Tensor) -> Tensor:  # (B, ...) -> (B, outputs)
        """The network's output.

        Raises:
            UserError: `x` is not float32 on the CPU, or its shape does not fit.
        """
        if torch.compiler.is_compiling():
            return torch.ops.granprune.run(x, self.id)
        return self.run(x)

    def run(self, x: Tensor) -> Tensor:
        """What a call does, outside of `torch.compile`."""
        self._check(x)
        x = x.detach().contiguous()
        y = torch.empty(len(x), self.outputs)
        if len(x):
            self.program(x.shape).run(x, y)
        return y

    def program(self, shape: torch.Size) -> "Program":
        """The program for a batch of that shape, planned when it is first needed."""
        key = (0 if shape[0] < FEW else 1,) if self._linear else tuple(shape[1:])
        program = self._programs.get(key)
        if program is None:
            with self._lock:
                program = self._programs.get(key) or Program(self._engine, self._plan(key))
                self._programs[key] = program
        return program

    def _plan(self, key: tuple[int, ...]) -> Plan:
        layers = self._layers
        if not self._linear:
            channels, height, width = key
            return plan_images(layers, channels, height, width, self.lanes)
        return plan_batch(layers, self.inputs) if key[0] else plan_vector(layers, self.inputs, self.lanes)

    @property
    def lanes(self) -> int:
        """Floats in the engine's widest vector."""
        return self._engine.granprune_lanes()

    def _check(self, x: Tensor) -> None:
        if x.dtype != torch.float32 or x.device.type != "cpu":
            raise UserError(f"the engine takes float32 tensors on the cpu, got {x.dtype} on {x.device}")
        fits = x.ndim >= 2 and x[:1].numel() == self.inputs * len(x[:1]) if self._linear else (
            x.ndim == 4 and x.shape[1] == self.inputs and min(x.shape[2:]) > 0
        )  # fmt: skip
        if not fits:
            wanted = f"(B, {self.inputs})" if self._linear else f"(B, {self.inputs}, height, width)"
            raise UserError(f"the engine takes a batch of shape {wanted}, got {tuple(x.shape)}")


def largest_error(network: Callable[[Tensor], Tensor], model: MaskedModel, images: Tensor) -> float:
    """The largest difference from the masked model's outputs, relative to their largest magnitude."""
    with torch.no_grad(), evaluating(model):
        wanted = model(images)
        difference = (network(images) - wanted).abs().max()
    return float(difference / wanted.abs().max().clamp(min=torch.finfo(wanted.dtype).tiny))


class Program:
    """A plan in the engine's hands, and the memory it keeps between calls."""

    def __init__(self, library: ctypes.CDLL, plan: Plan) -> None:
        self.plan = plan  # owns the tables that the engine reads
        steps = np.array(plan.steps)
        sizes = len(steps), plan.floats, plan.chunk
        self._run: Callable[..., int] = library.granprune_run
        self._handle = library.granprune_open(steps.ctypes.data, *sizes)
        weakref.finalize(self, library.granprune_close, self._handle)

    def run(self, x: Tensor, y: Tensor) -> None:
        """Fill `y` (n, outputs) with the network's outputs for `x` (n, ...)."""
        n = len(x)
        inputs, outputs = x.numel() // n, y.shape[1]
        threads = torch.get_num_threads()
        if self._run(self._handle, x.data_ptr(), y.data_ptr(), n, inputs, outputs, threads):
            raise MemoryError("the sparse engine ran out of memory")


_ids = itertools.count()
_networks: "weakref.WeakValueDictionary[int, SparseNetwork]" = weakref.WeakValueDictionary()


@torch.library.custom_op("granprune::run", mutates_args=())
def _run(x: Tensor, network: int) -> Tensor:
    return _networks[network].run(x)


@_run.register_fake
def _(x: Tensor, network: int) -> Tensor:
    return torch.empty(x.shape[0], _networks[network].outputs)
