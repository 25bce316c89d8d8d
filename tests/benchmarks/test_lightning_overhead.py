from types import SimpleNamespace

import torch
from torch.nn import functional as F

from benchmarks.lightning_overhead import BareLoop
from granprune.data.loader import TrainLoader
from granprune.data.split import Normalise, Split


def test_the_bare_loop_takes_the_steps_of_the_optimizer_that_the_run_has():
    """Three steps over an epoch of two batches, then the same by hand."""
    torch.manual_seed(0)
    normalise = Normalise((0.5,) * 3, (0.2,) * 3, torch.device("cpu"))
    split = Split(torch.randint(256, (6, 3, 32, 32)).to(torch.uint8), torch.arange(6), normalise)
    theirs = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01, momentum=0.9, weight_decay=1e-4)
    trainer = SimpleNamespace(
        optimizers=[theirs],
        datamodule=SimpleNamespace(train_dataloader=lambda: TrainLoader(split, 4, seed=1)),
    )
    loop = BareLoop(trainer, steps=3)
    assert loop.optimizer.defaults == theirs.defaults
    network = BareLoop(trainer, 1).network
    network.load_state_dict(loop.network.state_dict())
    loop()

    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    loader = TrainLoader(split, 4, seed=1)
    for images, labels in [*loader, next(iter(loader))]:
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    for ours, wanted in zip(loop.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours, wanted)
