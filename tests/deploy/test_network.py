import threading

import pytest
import torch

from granprune.deploy.network import Masked, SparseNetwork, largest_error
from granprune.errors import UserError
from granprune.granularity import Channels, Kernels, Nodes, Weights
from granprune.models import DBSN, ResNet20
from granprune.native import LEVELS, level

ORDER = list(LEVELS)
AVAILABLE = ORDER[ORDER.index(level()) :]


@pytest.mark.parametrize("instructions", AVAILABLE)
@pytest.mark.parametrize("granularity", [Weights, Kernels, Channels])
@pytest.mark.parametrize("density", [0, 0.05, 0.4, 1])
def test_resnet_gives_the_masked_networks_outputs(masked, instructions, granularity, density):
    model = masked(ResNet20(width=6), granularity(), density)
    network = SparseNetwork(model, instructions)
    assert largest_error(network, model, torch.randn(3, 3, 32, 32)) < 1e-4
    assert largest_error(network, model, torch.randn(1, 3, 19, 26)) < 1e-4


@pytest.mark.parametrize("granularity", [Weights, Nodes])
@pytest.mark.parametrize("density", [0, 0.05, 0.4, 1])
def test_dbsn_gives_the_masked_networks_outputs(masked, granularity, density):
    model = masked(DBSN(widths=(90, 41, 20), in_features=64), granularity(), density)
    network = SparseNetwork(model)
    for images in 1, 3, 4, 33, 129:
        assert largest_error(network, model, torch.randn(images, 1, 8, 8)) < 1e-4


def test_any_batch_size_and_any_number_of_threads(masked):
    model = masked(ResNet20(width=2), Weights(), 0.5)
    network = SparseNetwork(model)
    for threads in 1, 2, 5:
        torch.set_num_threads(threads)
        for images in 1, 7, 64:
            assert largest_error(network, model, torch.randn(images, 3, 32, 32)) < 1e-4
    assert network(torch.randn(0, 3, 32, 32)).shape == (0, 10)


def test_threads_of_the_caller_do_not_disturb_each_other(masked):
    model = masked(DBSN(widths=(60,), in_features=20), Weights(), 0.5)
    network = SparseNetwork(model)
    inputs = [torch.randn(1 + 9 * i, 20) for i in range(8)]
    wrong = []

    def work(x):
        for _ in range(20):
            with torch.inference_mode():
                if not torch.allclose(network(x), model(x), rtol=1e-4, atol=1e-4):
                    wrong.append(len(x))

    workers = [threading.Thread(target=work, args=(x,)) for x in inputs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_strided_and_differentiable_inputs_are_read_as_values(masked):
    model = masked(ResNet20(width=2), Kernels(), 0.5)
    x = torch.randn(2, 32, 32, 3).permute(0, 3, 1, 2).requires_grad_()
    y = SparseNetwork(model)(x)
    assert not y.requires_grad
    assert torch.allclose(y, model(x), atol=1e-4)


def test_compiles_as_one_operator_without_graph_breaks(masked):
    network = SparseNetwork(masked(ResNet20(width=2), Weights(), 0.5))
    x = torch.randn(2, 3, 32, 32)
    compiled = torch.compile(lambda x: 2 * network(x), backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), 2 * network(x))
    torch.library.opcheck(torch.ops.granprune.run.default, (x, network.id))


def test_the_model_may_change_afterwards(masked):
    model = masked(ResNet20(width=2), Weights(), 0.5)
    network, x = SparseNetwork(model), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        before = model(x)
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.allclose(network(x), before, atol=1e-4)


@pytest.mark.parametrize(
    "x",
    [torch.zeros(1, 3, 32, 32, dtype=torch.float64), torch.zeros(1, 4, 32, 32), torch.zeros(3, 32, 32)],
)
def test_refuses_what_it_cannot_read(masked, x):
    network = SparseNetwork(masked(ResNet20(width=2), Weights(), 0.5))
    with pytest.raises(UserError, match="the engine takes"):
        network(x)


def test_masked_stand_in_evaluates_and_says_what_it_is(masked):
    model = masked(ResNet20(width=2), Channels(), 0.5)
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        wanted = model(x)
    model.train()
    assert torch.equal(Masked(model)(x), wanted)
    assert model.training
    assert (Masked.form, SparseNetwork.form) == ("masked dense", "sparse engine")
