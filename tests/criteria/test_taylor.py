import pytest
import torch
from torch.nn import functional as F

from granprune.criteria import Taylor
from granprune.granularity import Blocks, Channels, Kernels, Nodes, Weights
from granprune.masking import MaskedModel

CASES = [
    (Weights(), "convnet"),
    (Kernels(), "convnet"),
    (Blocks(2, 4, 2, 3), "convnet"),
    (Channels(), "convnet"),
    (Weights(), "mlp"),
    (Nodes(), "mlp"),
]


def shared_mask_gradients(model, image, label):
    """Gradients of one sample's loss in the masks, by plain autograd."""
    with model.soft_masks() as soft:
        loss = F.cross_entropy(model(image[None]), label[None])
        return dict(zip(soft, torch.autograd.grad(loss, list(soft.values())), strict=True))


@pytest.mark.parametrize("granularity, network", CASES, ids=lambda value: str(type(value).__name__))
def test_mean_of_squares_one_sample_at_a_time(granularity, network, request):
    data = request.getfixturevalue("batches" if network == "convnet" else "flat_batches")
    data = [(images.double(), labels) for images, labels in data]
    model = MaskedModel(request.getfixturevalue(network).double().eval(), granularity)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.div_(5)
    for mask in model.masks.values():
        mask.copy_(torch.rand(mask.shape, generator=generator) < 0.7)
    wanted = {name: torch.zeros(mask.shape).double() for name, mask in model.masks.items()}
    for images, labels in data:
        for image, label in zip(images, labels, strict=True):
            for name, gradient in shared_mask_gradients(model, image, label).items():
                wanted[name] += gradient.square() / 10
    found = Taylor()(model, data, torch.Generator())
    for name, score in found.items():
        kept = model.masks[name]
        assert score.shape == kept.shape and (score > 0).any()
        torch.testing.assert_close(score[kept], wanted[name][kept], rtol=1e-9, atol=1e-12)


def test_joint_importance_of_a_weight_and_a_block_by_hand(mlp):
    """With equal logits of two classes, the gradient of the loss in the logits is (1/2, -1/2)."""
    with torch.no_grad():
        mlp.hidden.weight.copy_(torch.eye(3, 4))
        mlp.hidden.bias.zero_()
        mlp.head.weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]))
        mlp.head.bias.zero_()
    images = torch.tensor([[1.0, 2.0, 4.0, 0.0]]).view(1, 1, 2, 2)
    found = Taylor()(MaskedModel(mlp, Blocks(1, 2)), [(images, torch.tensor([1]))], torch.Generator())
    # rows of the head: w dL/dw = +-1/2 w h with h = (1, 2, 4), in blocks of two and one
    wanted = torch.tensor([[(0.5 * (1 * 1 + 2 * 2)) ** 2, (0.5 * 3 * 4) ** 2]] * 2)
    torch.testing.assert_close(found["head"], wanted)


def test_num_samples_cuts_the_data(convnet, batches):
    model = MaskedModel(convnet.eval(), Kernels())
    found = Taylor(num_samples=4)(model, batches, torch.Generator())
    wanted = Taylor()(model, batches[:1], torch.Generator())
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
