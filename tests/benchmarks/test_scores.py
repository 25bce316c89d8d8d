import pytest
import torch

from benchmarks import scores
from granprune.criteria import SNIP
from granprune.errors import UserError
from granprune.granularity import Channels, Nodes, Weights
from granprune.masking import MaskedModel, evaluating
from granprune.scoring import score


@pytest.mark.parametrize("granularity", [Weights(), Channels()])
def test_the_rival_follows_the_definition_that_snip_is_tested_against(convnet, granularity, batches):
    model = MaskedModel(convnet, granularity)
    rival = scores.one_at_a_time(model, *(torch.cat(part) for part in zip(*batches, strict=True)))
    ours = score(model, batches, SNIP("per_sample", 10), torch.Generator())
    assert rival.keys() == ours.keys()
    for name, value in ours.items():
        torch.testing.assert_close(rival[name], value, rtol=1e-4, atol=1e-5)


def test_magnitudes_are_taken_before_the_mean(mlp):
    """Two images of opposite gradients do not cancel."""
    with torch.no_grad():
        mlp.hidden.weight.copy_(torch.eye(4)[:3])
        mlp.hidden.bias.zero_()
        mlp.head.weight.copy_(torch.tensor([[0.0, 0, 0], [1, 0, 0]]))
        mlp.head.bias.copy_(torch.tensor([0.0, -1]))
    model = MaskedModel(mlp, Nodes())
    images, labels = torch.tensor([[1.0, 0, 0, 0]] * 2), torch.tensor([0, 1])
    # At the first node's output 1 both logits are 0, so the loss has gradient +1/2 or -1/2 there.
    with evaluating(model):
        found = scores.one_at_a_time(model, images, labels)
    assert found["hidden"].tolist() == pytest.approx([0.5, 0, 0])


def test_scores_that_differ_are_no_rivals():
    right = {"a": torch.tensor([1.0, 2.0])}
    scores._compare(right, right)
    with pytest.raises(UserError, match="layer a differ"):
        scores._compare({"a": torch.tensor([1.0, 2.1])}, right)
