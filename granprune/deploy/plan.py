"""Plans a network for the engine: where each plane is, and the steps that fill it."""

from dataclasses import dataclass, field

import numpy as np

from granprune.deploy.layers import IMAGE, Layer
from granprune.deploy.packed import Array
from granprune.deploy.tables import KINDS, OUTPUT, STEP, Geometry, Table, View, vector_table

ACTIVATIONS = {"linear": 0, "relu": 1, "tanh": 2}
BATCH = 128  # images that share a pass of a linear network
# Time of a multiply-add against one that only computes, measured on Zen 4. The planes of a convolution's
# tile stay in the first cache; a batch of features does not.
IMAGES = {"WEIGHTS": 1.45, "COLUMNS": 1.2, "DENSE": 1.1}
FEATURES = {"WEIGHTS": 2.4, "COLUMNS": 2.4, "DENSE": 1.1}


@dataclass
class Plan:
    """Steps for the engine and the tables they point to.

    Args:
        chunk: Images a pass.
        floats: Size of the memory the steps work in.
        steps: Records of `STEP`.
        tables: What the steps' pointers point to.
    """

    chunk: int = 1
    floats: int = 0
    steps: list[Array] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)

    def place(self, planes: int, geometry: Geometry) -> int:
        """Reserve planes; returns where pixel (0, 0) of the first one is."""
        start = self.floats + geometry.origin
        # A row below, a vector that reads on over the end, whole cache lines.
        size = geometry.origin + planes * geometry.plane + 2 * geometry.row + 32
        self.floats += -(-size // 16) * 16
        return start

    def step(self, kind: str, **values: int) -> None:
        """Append a step that moves data."""
        record = np.zeros((), STEP)
        record["kind"] = KINDS.index(kind)
        for name, value in values.items():
            record[name] = value
        self.steps.append(record)

    def compute(self, table: Table, activation: str, **values: int) -> None:
        """Append a step that multiplies and adds."""
        self.tables.append(table)
        self.step(
            table.kind,
            activation=ACTIVATIONS[activation],
            items=len(table.items),
            item=table.items.ctypes.data,
            output=table.outputs.ctypes.data,
            taps=table.taps.ctypes.data,
            index=table.index.ctypes.data,
            **values,
        )


@dataclass
class Planes:
    """A layer's output in the arena; one plane more than it has outputs is reserved."""

    start: int
    count: int
    shape: Geometry


def plan_images(layers: list[Layer], channels: int, height: int, width: int, lanes: int) -> Plan:
    """A plan for convolutions, one image a pass.

    Args:
        layers: What `layers_of` gives.
        channels: Channels of an image.
        height: Rows of an image.
        width: Pixels of a row.
        lanes: Floats in the engine's widest vector.
    """
    plan, free = Plan(), _Free()
    image = free.take(plan, channels, Geometry.padded(height, width, lanes))
    plan.step("LOAD", channels=channels, height=height, width=width, **_target(image))
    made, halves = {IMAGE: image}, {}
    for i, layer in enumerate(layers):
        source = made[layer.source]
        if layer.pooled:
            source = _mean(plan, source)
        if layer.stride == 2:
            if layer.source not in halves:
                halves[layer.source] = _split(plan, source, lanes)
            source = halves[layer.source]
        target = made[i] = free.take(plan, len(layer.bias), source.shape)
        view = _view(layer, source, target, layers, made)
        plan.compute(
            view.table(_cheapest(view, layer.stride, IMAGES)),
            layer.activation,
            height=source.shape.height,
            width=source.shape.width,
            **_target(target),
        )
        free.give(made, layers, i)
    return _store(plan, made[len(layers) - 1])


def plan_batch(layers: list[Layer], inputs: int) -> Plan:
    """A plan for linear layers, up to 128 images a pass: a plane is one feature of all the images."""
    plan, free = Plan(chunk=BATCH), _Free()
    shape = Geometry(BATCH // 16, 16, 16, BATCH, 0)
    source = free.take(plan, inputs, shape)
    made = {IMAGE: source}
    plan.step("LOAD", channels=inputs, width=16, **_target(source))
    for i, layer in enumerate(layers):
        target = made[i] = free.take(plan, len(layer.bias), shape)
        view = _view(layer, made[layer.source], target, layers, made)
        table = view.table(_cheapest(view, layer.stride, FEATURES), _block(view))
        plan.compute(table, layer.activation, width=16, **_target(target))
        free.give(made, layers, i)
    return _store(plan, made[len(layers) - 1])


def plan_vector(layers: list[Layer], inputs: int, lanes: int) -> Plan:
    """A plan for linear layers, one image a pass.

    Args:
        layers: What `layers_of` gives.
        inputs: Features of an image.
        lanes: Floats in the engine's widest vector.
    """
    plan = Plan()
    source = Planes(plan.place(inputs, _VALUES), inputs, _VALUES)
    made = {IMAGE: source}
    plan.step("LOAD", channels=1, height=1, width=inputs, **_target(source))
    for i, layer in enumerate(layers):
        count = len(layer.bias)
        source, target = made[layer.source], Planes(plan.place(count, _VALUES), count, _VALUES)
        made[i] = target
        table = vector_table(_view(layer, source, target, layers, made), lanes)
        plan.compute(table, layer.activation, source=source.start, width=-(-source.count // 16))
    return _store(plan, made[len(layers) - 1])


_VALUES = Geometry(1, 1, 1, 1, 0)


class _Free:
    """Planes that are no longer read; their padding stays zero, so shapes are never mixed."""

    def __init__(self) -> None:
        self._planes: list[Planes] = []

    def take(self, plan: Plan, count: int, shape: Geometry) -> Planes:
        for planes in self._planes:
            if planes.shape == shape and planes.count == count:
                self._planes.remove(planes)
                return planes
        return Planes(plan.place(count + 1, shape), count, shape)

    def give(self, made: dict[int, Planes], layers: list[Layer], done: int) -> None:
        """Take back what no layer after `done` reads."""
        needed = {len(layers) - 1}
        for layer in layers[done + 1 :]:
            needed.add(layer.source)
            if layer.residual is not None:
                needed.add(layer.residual)
        for i in [i for i in made if i not in needed]:
            self._planes.append(made.pop(i))


def _view(layer: Layer, source: Planes, target: Planes, layers: list[Layer], made: dict[int, Planes]) -> View:
    alive = np.ones(len(layer.bias), bool) if layer.alive is None else layer.alive
    rows = np.flatnonzero(alive)
    outputs = np.zeros(len(rows), OUTPUT)
    outputs["target"] = target.start + rows * target.shape.plane
    outputs["bias"] = layer.bias[rows]
    outputs["residual"] = -1
    if layer.residual is not None:
        added = made[layer.residual].start + rows * target.shape.plane
        there = layers[layer.residual].alive
        outputs["residual"] = added if there is None else np.where(there[rows], added, -1)
    spare = target.start + target.count * target.shape.plane
    position, side = _positions(layer.weight.shape, layer.stride, source)
    return View(layer.weight.of_outputs(alive), position, side, outputs, spare)


def _positions(weight: tuple[int, ...], stride: int, source: Planes) -> tuple[Array, Array]:
    """(inputs, k, k) rows that each weight reads, and (k,) whether its pixel is left, right or the same."""
    size, shape = weight[-1], source.shape
    step = np.arange(size) - size // 2
    # With a stride of 2, step -1 is the odd plane's pixel before, 0 the even plane's, 1 the odd plane's.
    parity, shift = (step % 2, step // 2) if stride == 2 else (0 * step, step)
    planes = stride**2 * np.arange(weight[1])
    plane = planes[:, None, None] + 2 * parity[:, None] + parity
    position = source.start + plane * shape.plane + shift[:, None] * shape.row
    return position, np.array([2, 1, 0])[shift]  # index -1 is the last one


def _cheapest(view: View, stride: int, slowdown: dict[str, float]) -> str:
    kinds = ["WEIGHTS", "DENSE"]
    if len(view.side) == 3 and stride == 1:
        kinds.append("COLUMNS")
    return min(kinds, key=lambda kind: view.cost(kind, slowdown[kind]))


def _block(view: View) -> int:
    """Features read at a time, 512 bytes each: few for the cache, but enough taps to pay for the sums."""
    density = len(view.weight.values) / max(np.prod(view.weight.shape), 1)
    return 64 if density > 0.18 else 128 if density > 0.08 else 256


def _split(plan: Plan, source: Planes, lanes: int) -> Planes:
    shape = Geometry.padded(-(-source.shape.height // 2), -(-source.shape.width // 2), lanes)
    halves = Planes(plan.place(4 * source.count, shape), 4 * source.count, shape)
    size = {"channels": source.count, "height": source.shape.height, "width": source.shape.width}
    plan.step("SPLIT", **size, **_source(source), **_target(halves))
    return halves


def _mean(plan: Plan, source: Planes) -> Planes:
    values = Planes(plan.place(source.count, _VALUES), source.count, _VALUES)
    size = {"channels": source.count, "height": source.shape.height, "width": source.shape.width}
    plan.step("MEAN", **size, **_source(source), target=values.start)
    return values


def _store(plan: Plan, last: Planes) -> Plan:
    plan.step("STORE", channels=last.count, width=last.shape.width, **_source(last))
    return plan


def _source(planes: Planes) -> dict[str, int]:
    shape = planes.shape
    return {"source": planes.start, "source_plane": shape.plane, "source_row": shape.row}


def _target(planes: Planes) -> dict[str, int]:
    shape = planes.shape
    return {"target": planes.start, "target_plane": shape.plane, "target_row": shape.row}
