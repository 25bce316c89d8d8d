import io

import pytest
import torch
from torch.nn import functional as F

from granprune.granularity import Channels, Weights
from granprune.masking import MaskedModel
from granprune.rewind import Snapshot


def optimizers(model):
    return {
        "sgd": lambda: torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4),
        "adam": lambda: torch.optim.Adam(model.parameters(), 0.01),
    }


def train(model, optimizer, batches):
    model.train()
    losses = []
    for images, labels in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def values(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("granularity", [Weights, Channels])
@pytest.mark.parametrize("kind", ["sgd", "adam"])
@pytest.mark.parametrize("warm", [False, True], ids=["at init", "late"])
def test_the_same_training_follows_from_a_restored_snapshot(kind, granularity, warm, convnet, batches):
    model = MaskedModel(convnet, granularity())
    optimizer = optimizers(model)[kind]()
    if warm:
        train(model, optimizer, batches)
    snapshot = Snapshot.take(model, optimizer)
    start = values(model)
    runs = []
    for _ in range(3):  # the third shows that training did not change the snapshot
        runs.append((train(model, optimizer, batches), values(model)))
        snapshot.restore(model, optimizer)
        assert_equal(values(model), start)
    assert runs[0][0] == runs[1][0] == runs[2][0]
    assert_equal(runs[0][1], runs[1][1])
    assert_equal(runs[0][1], runs[2][1])
    assert any(not torch.equal(runs[0][1][key], start[key]) for key in start)


def test_masks_survive_and_tensors_stay_the_same_objects(convnet, batches):
    model = MaskedModel(convnet, Weights())
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    snapshot = Snapshot.take(model, optimizer)
    live = list(model.parameters())
    model.masks["stem"].zero_()
    train(model, optimizer, batches)
    snapshot.restore(model, optimizer)
    assert not model.masks["stem"].any()
    assert all(one is other for one, other in zip(live, model.parameters(), strict=True))
    assert (model.weights()["stem"] != 0).any()


def test_batch_normalisation_statistics_are_rewound(convnet, batches):
    model = MaskedModel(convnet, Weights())
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    snapshot = Snapshot.take(model, optimizer)
    train(model, optimizer, batches)
    assert convnet.bn.num_batches_tracked == 3
    snapshot.restore(model, optimizer)
    assert convnet.bn.num_batches_tracked == 0
    assert (convnet.bn.running_mean == 1).all() and (convnet.bn.running_var == 4).all()


def test_the_state_is_tensors_and_plain_values_and_can_go_through_a_file(convnet, batches):
    model = MaskedModel(convnet, Weights())
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    train(model, optimizer, batches)
    start = values(model)
    file = io.BytesIO()
    torch.save(Snapshot.take(model, optimizer).state, file)
    train(model, optimizer, batches)
    file.seek(0)
    Snapshot(torch.load(file, weights_only=True)).restore(model, optimizer)
    assert_equal(values(model), start)
