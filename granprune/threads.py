"""How many threads a training step on the CPU is worth."""

import torch

SMALL = 50e6  # multiply-adds of a batch's forward pass


def limit_threads(multiply_adds: float) -> None:
    """Let small steps run in one thread of PyTorch's.

    Below 50 million multiply-adds in a batch's forward pass one thread was as fast as two or faster,
    for MLPs and for ResNets. And it stays so beside other programs: threads that share so little work
    mostly wait for each other, and for the one whose core is taken by another program.

    Args:
        multiply_adds: Of a batch's forward pass.
    """
    if multiply_adds < SMALL:
        torch.set_num_threads(1)
