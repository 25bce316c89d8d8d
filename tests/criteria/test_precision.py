"""Channels-last images in float32 take other ways, often compiled ones, than float64: to the same scores."""

import copy

import pytest
import torch

from granprune.criteria import SNIP, GradientMagnitude, GraSP, Statistical, SynFlow, Taylor
from granprune.granularity import Channels, Kernels, Weights
from granprune.masking import MaskedModel
from granprune.models import ResNet20
from granprune.scoring import score

CRITERIA = [SNIP(), SNIP("batch"), GraSP(), GradientMagnitude(), SynFlow(), Taylor()]
CASES = [(c, g) for c in CRITERIA for g in (Weights(), Kernels(), Channels())] + [(Statistical(), Channels())]


@pytest.mark.parametrize("criterion, granularity", CASES, ids=lambda value: type(value).__name__)
def test_scores_of_a_resnet_are_the_same_in_both_precisions(criterion, granularity):
    torch.manual_seed(0)
    model = MaskedModel(ResNet20(width=4), granularity).to(memory_format=torch.channels_last)
    for _ in range(3):  # running statistics like those of a trained network
        model(torch.randn(32, 3, 32, 32))
    for mask in model.masks.values():
        mask.copy_(torch.rand(mask.shape) < 0.8)
    images, labels = torch.randn(6, 3, 32, 32), torch.randint(10, (6,))
    found = []
    for network, x in (model, images), (copy.deepcopy(model).double(), images.double()):
        batches = [(x[:4], labels[:4]), (x[4:], labels[4:])]
        found.append(score(network, batches, copy.deepcopy(criterion), torch.Generator().manual_seed(0)))
    for name, wanted in found[1].items():
        atol = 2e-3 * float(wanted.abs().max())
        torch.testing.assert_close(found[0][name].double(), wanted.double(), rtol=1e-2, atol=atol, msg=name)
