import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from granprune.deploy import plan as plans
from granprune.deploy.engine import engine
from granprune.deploy.layers import Layer, trim
from granprune.deploy.network import Program
from granprune.deploy.packed import Packed
from granprune.deploy.plan import plan_batch, plan_images, plan_vector
from granprune.native import LEVELS, level

ORDER = list(LEVELS)
AVAILABLE = ORDER[ORDER.index(level()) :]
ACTIVATIONS = {
    "linear": lambda y: y,
    "relu": torch.relu,
    "tanh": lambda y: 1.7159 * torch.tanh(0.6666 * y),
}


def reference(layers, x):
    """The layers computed by torch in float64."""
    made = {-1: x.double()}
    for i, layer in enumerate(layers):
        source = made[layer.source]
        if layer.pooled:
            source = source.mean((2, 3), keepdim=True)
        weight, bias = torch.from_numpy(layer.weight.dense()).double(), torch.from_numpy(layer.bias).double()
        y = F.conv2d(source, weight, bias, layer.stride, padding=weight.shape[-1] // 2)
        if layer.residual is not None:
            y = y + made[layer.residual]
        y = ACTIVATIONS[layer.activation](y)
        if layer.alive is not None:
            y = y * torch.from_numpy(layer.alive)[:, None, None]
        made[i] = y
    return y.flatten(1)


def random_layer(rng, inputs, outputs, size, density, source, **options):
    weight = rng.standard_normal((outputs, inputs, size, size)).astype(np.float32)
    weight *= rng.random(weight.shape if rng.random() < 0.5 else (outputs, inputs, 1, 1)) < density
    bias = rng.standard_normal(outputs).astype(np.float32)
    return Layer(Packed.of(weight), bias, source, **options)


def ones(size):
    return Packed.of(np.ones((1, 1, size, size), np.float32))


def random_network(rng, channels):
    """Stem, an optional strided block with a 1x1 shortcut, a plain block, a pooled classifier."""
    a, b, c, d = rng.integers(1, 23, 4)
    density = lambda: rng.choice([0, 0.02, 0.1, 0.3, 0.7, 1])  # noqa: E731
    stride = int(rng.integers(1, 3))
    alive = [rng.random(n) < rng.choice([0, 0.5, 1]) for n in (a, b, c)]
    return [
        random_layer(rng, channels, a, 3, density(), -1, activation="relu", alive=alive[0]),
        random_layer(rng, a, c, 1, density(), 0, stride=stride),
        random_layer(rng, a, b, 3, density(), 0, stride=stride, activation="relu", alive=alive[1]),
        random_layer(rng, b, c, 3, density(), 2, residual=1, activation="relu", alive=alive[2]),
        random_layer(rng, c, d, 3, density(), 3, activation="tanh"),
        random_layer(rng, d, c, 3, density(), 4, residual=3),
        random_layer(rng, c, 7, 1, 1, 5, pooled=True),
    ]


def lanes(instructions):
    return engine(instructions).granprune_lanes()


def run(plan, instructions, x, outputs):
    y = torch.full((len(x), outputs), torch.nan)
    Program(engine(instructions), plan).run(x, y)
    return y


def close(y, wanted):
    return torch.allclose(y.double(), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max() + 1e-3))


@pytest.mark.parametrize("instructions", AVAILABLE)
@pytest.mark.parametrize("seed", range(25))
def test_random_convolutions_of_any_size(instructions, seed):
    rng = np.random.default_rng(seed)
    channels, height, width, images = rng.integers(1, (5, 41, 41, 4))
    layers = random_network(rng, channels)
    x = torch.from_numpy(rng.standard_normal((images, channels, height, width)).astype(np.float32))
    wanted = reference(layers, x)
    plan = plan_images(trim(layers), int(channels), int(height), int(width), lanes(instructions))
    assert close(run(plan, instructions, x, 7), wanted)


@pytest.mark.parametrize("instructions", AVAILABLE)
@pytest.mark.parametrize("kind", ["WEIGHTS", "COLUMNS", "DENSE"])
@pytest.mark.parametrize("density", [0, 0.3, 1])
def test_each_kind_of_convolution(instructions, kind, density, monkeypatch):
    monkeypatch.setattr(plans, "_cheapest", lambda view, stride, slowdown: kind)
    rng = np.random.default_rng(1)
    layers = [
        random_layer(rng, 5, 6, 3, density, -1),
        random_layer(rng, 6, 3, 3, density, 0, activation="relu"),
    ]
    for height, width in itertools.product([1, 2, 5, 9, 16], [1, 3, 4, 7, 8, 16, 17, 24, 32, 33]):
        x = torch.from_numpy(rng.standard_normal((1, 5, height, width)).astype(np.float32))
        layers[1].pooled = False
        whole = [*layers, random_layer(rng, 3, 4, 1, 1, 1, pooled=True)]
        wanted = reference(whole, x)
        # The pooled classifier is a 1x1 convolution, which has no 3x3 kernels.
        monkeypatch.setattr(
            plans, "_cheapest", lambda view, stride, slowdown: kind if len(view.side) == 3 else "DENSE"
        )
        assert close(
            run(plan_images(trim(whole), 5, height, width, lanes(instructions)), instructions, x, 4), wanted
        )


@pytest.mark.parametrize("instructions", AVAILABLE)
@pytest.mark.parametrize("density", [0, 0.05, 0.2, 0.5, 0.9, 1])
def test_linear_layers_one_by_one_and_in_batches(instructions, density):
    rng = np.random.default_rng(int(100 * density))
    sizes = rng.integers(1, 600, 3)
    layers = [
        random_layer(rng, sizes[0], sizes[1], 1, density, -1, activation="tanh"),
        random_layer(
            rng, sizes[1], sizes[2], 1, density, 0, activation="tanh", alive=rng.random(sizes[2]) < 0.7
        ),
        random_layer(rng, sizes[2], 9, 1, density, 1),
    ]
    for images in (1, 2, 15, 17, 100, 128, 150, 300):
        x = torch.from_numpy(0.1 * rng.standard_normal((images, sizes[0])).astype(np.float32))
        wanted = reference(layers, x[:, :, None, None])
        trim(layers)
        one, many = (
            plan_vector(layers, int(sizes[0]), lanes(instructions)),
            plan_batch(layers, int(sizes[0])),
        )
        assert close(run(one, instructions, x, 9), wanted)
        assert close(run(many, instructions, x, 9), wanted)


@pytest.mark.parametrize("instructions", AVAILABLE)
def test_tanh_is_exact_to_rounding_everywhere(instructions):
    x = torch.cat([torch.linspace(-20, 20, 4001), torch.tensor([0.0, 1e-30, -1e-8, torch.inf, -torch.inf])])
    layers = [Layer(ones(1), np.zeros(1, np.float32), -1, activation="tanh")]
    wanted = 1.7159 * torch.tanh(0.6666 * x.double())
    for plan in plan_batch(layers, 1), plan_vector(layers, 1, 1):
        y = run(plan, instructions, x[:, None], 1)[:, 0].double()
        assert torch.allclose(y, wanted, rtol=1e-6, atol=0)


def test_nan_inputs_stay_visible():
    layers = [Layer(ones(3), np.zeros(1, np.float32), -1, activation="relu")]
    layers.append(Layer(ones(1), np.zeros(1, np.float32), 0, pooled=True))
    y = run(plan_images(layers, 1, 8, 8, lanes(level())), level(), torch.full((1, 1, 8, 8), torch.nan), 1)
    assert torch.isnan(y).all()
