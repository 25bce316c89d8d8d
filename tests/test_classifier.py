import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch.nn import functional as F

from granprune.classifier import Classifier, Split, cpu_has_bfloat16
from granprune.data import ImageDataModule
from granprune.errors import UserError
from granprune.granularity import Nodes, Weights
from granprune.learning_rate import WarmupAndDrops
from granprune.schedule import Iterative


class Twenty(ImageDataModule):
    """Twenty 1x2x2 images of two classes; the test images are the first five."""

    name, num_classes, image_shape, mean, std, stored = "twenty", 2, (1, 2, 2), (0.5,), (0.5,), False

    def fetch(self):
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (20, *self.image_shape), generator=generator, dtype=torch.uint8)
        labels = torch.arange(20) % self.num_classes
        return {
            "train_images": images,
            "train_labels": labels,
            "test_images": images[:5],
            "test_labels": labels[:5],
        }


def trainer(**options):
    return Trainer(
        **options,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def normalised(images):
    return images.float() / 255 / 0.5 - 1


def test_evaluation_of_each_split(mlp):
    """Against sums over the images themselves, in an order and batches of their own."""
    module, data = Classifier(mlp, Weights(), top_k=2), Twenty(batch_size=3, validation_fraction=0.35, seed=1)
    (found,) = trainer().test(module, datamodule=data, verbose=False)
    assert found == pytest.approx(by_hand(mlp, *split(data, "test")))

    runner = trainer()
    runner.validate(module, datamodule=data, verbose=False)
    validation, test = split(data, "validation"), split(data, "test")
    assert len(validation[0]) == 7
    expected = by_hand(mlp, *test) | by_hand(mlp, *validation, name="validation")
    assert {key: float(value) for key, value in runner.callback_metrics.items()} == pytest.approx(expected)


def split(data, name):
    part = data._splits[name]
    return normalised(part.images), part.labels


def by_hand(network, images, labels, name="test"):
    with torch.no_grad():
        logits = network(images)
    order = logits.argsort(1, descending=True)
    return {
        f"{name}_loss": float(F.cross_entropy(logits, labels)),
        f"{name}_accuracy": float((order[:, 0] == labels).float().mean()),
        f"{name}_top2_accuracy": 1.0,  # of two classes, one is among the two likeliest
    }


def test_split_counts_each_sample_once():
    """Logits chosen so that the classes come in the order 0, 1, 2; labels 0, 1, 1, 2."""
    logits = torch.tensor([3.0, 2.0, 1.0])
    part = Split("test", num_classes=3, top_k=2)
    network = lambda images: logits.expand(len(images), 3)  # noqa: E731
    part.update(network, torch.zeros(3, 1), torch.tensor([0, 1, 1]))
    part.update(network, torch.zeros(0, 1), torch.empty(0, dtype=torch.int64))
    part.update(network, torch.zeros(1, 1), torch.tensor([2]))
    loss = [math.log(math.e**3 + math.e**2 + math.e) - value for value in (3, 2, 2, 1)]
    found = {key: float(value) for key, value in part.compute().items()}
    assert found == pytest.approx(
        {"test_loss": sum(loss) / 4, "test_accuracy": 1 / 4, "test_top2_accuracy": 3 / 4}
    )


def test_one_batch_that_is_not_a_number_shows():
    part = Split("test", num_classes=2, top_k=1)
    for logit in 1.0, math.nan:
        part.update(
            lambda images, logit=logit: torch.tensor([[logit, 0.0]]), torch.zeros(1, 1), torch.tensor([0])
        )
    assert math.isnan(part.compute()["test_loss"])


def test_training_sums(mlp):
    """Two batches of three: mean loss and accuracy over all six, then nothing until the next batch."""
    module = Classifier(mlp, Weights(), top_k=2)
    module.trainer = trainer()
    images, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2
    losses = [module.training_step((images[i : i + 3], labels[i : i + 3]), 0) for i in (0, 3)]
    found = module.take_training_metrics()
    with torch.no_grad():
        correct = (mlp(images).argmax(1) == labels).float().mean()
    expected = {"train_loss": sum(loss.item() for loss in losses) / 2, "train_accuracy": float(correct)}
    assert found == pytest.approx({**expected, "train_top2_accuracy": 1.0})
    assert losses[0].requires_grad
    assert module.take_training_metrics() == {}


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_divergence_ends_training(mlp, weight):
    module = Classifier(mlp, Weights())
    module.trainer = trainer()
    mlp.head.bias.data.fill_(weight)
    with pytest.raises(UserError, match="the training loss is nan at step 0: lower the learning rate"):
        module.training_step((torch.ones(3, 4), torch.zeros(3, dtype=torch.int64)), 0)


def test_optimizer_and_learning_rate(mlp):
    """The scheduler's factor is that of the position in the round."""
    module = Classifier(mlp, Weights(), torch.optim.SGD, WarmupAndDrops(warmup=0.5, drops=[0.75]))
    module.schedule = Iterative(rounds=1, steps=4, rewind_step=1)
    made = module.configure_optimizers()
    rates = []
    for _ in range(7):
        rates.append(made["optimizer"].param_groups[0]["lr"] / 0.001)
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx([0, 0.5, 1, 0.1, 0.5, 1, 0.1])
    assert made["lr_scheduler"]["interval"] == "step"


@pytest.mark.parametrize(
    "optimizer, fused",
    [
        (lambda p: torch.optim.SGD(p, momentum=0.9), True),
        (lambda p: torch.optim.Adam(p), True),
        (lambda p: torch.optim.Adam(p, foreach=False), None),
        (lambda p: torch.optim.Adam(p, fused=False), False),
        (lambda p: torch.optim.RMSprop(p), None),
    ],
)
def test_optimizers_are_fused_unless_asked_otherwise(optimizer, fused, mlp):
    made = Classifier(mlp, Weights(), optimizer).configure_optimizers()["optimizer"]
    assert [group.get("fused") for group in made.param_groups] == [fused]
    sum(p.square().sum() for p in mlp.parameters()).backward()
    made.step()


def test_optimizer_refuses(mlp):
    module = Classifier(mlp, Weights(), lambda parameters: torch.optim.SGD(parameters, lr=-1))
    with pytest.raises(UserError, match="model.optimizer: Invalid learning rate: -1"):
        module.configure_optimizers()


def test_setup_refuses_what_does_not_fit(mlp, convnet):
    def check(network, match, top_k=1, **shape):
        data = Twenty(batch_size=3)
        for name, value in shape.items():
            setattr(data, name, value)
        module = Classifier(network, Weights(), top_k=top_k)
        with pytest.raises(UserError, match=match):
            trainer().validate(module, datamodule=data, verbose=False)

    check(convnet, r"ToyConvNet cannot take images of shape \(1, 2, 2\)")
    check(type(mlp)(), r"ToyMLP puts out shape \(1, 2\) for one image; expected \(1, 3\)", num_classes=3)
    check(type(mlp)(), "model.top_k is 3, but there are 2 classes", top_k=3)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_cpu_without_bfloat16_says_so(precision, fast, mlp, caplog, monkeypatch):
    monkeypatch.setattr("granprune.classifier.cpu_has_bfloat16", lambda: fast)
    module = Classifier(mlp, Weights())
    trainer(precision=precision).validate(module, datamodule=Twenty(batch_size=3), verbose=False)
    said = [record.getMessage() for record in caplog.records if record.name == "granprune.classifier"]
    slow = "this CPU has no bfloat16 instructions: trainer.precision bf16-mixed is many times slower here"
    wanted = [slow] if precision == "bf16-mixed" and not fast else []
    assert [message[: len(slow)] for message in said] == wanted


def test_what_the_cpu_can_do_is_asked_of_onednn():
    features = Path("/proc/cpuinfo").read_text()
    if "avx2" in features:  # x86: it needs AVX-512 at least
        assert cpu_has_bfloat16() == ("avx512bw" in features)


def test_masks_and_sums_stay_out_of_ddp(mlp):
    module = Classifier(mlp, Nodes())
    assert module._ddp_params_and_buffers_to_ignore == ["network.network.hidden.mask.mask", "training_sums"]
