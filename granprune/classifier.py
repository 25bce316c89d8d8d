"""The LightningModule: a masked network, its loss, its accuracy and its optimizer."""

import logging
import math
from collections.abc import Callable
from typing import Any

import torch
from jsonargparse import lazy_instance
from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from granprune.allocator import keep_freed_memory
from granprune.counting import count
from granprune.data import ImageDataModule
from granprune.distributed import broadcast
from granprune.errors import UserError
from granprune.granularity import Granularity
from granprune.learning_rate import Constant, LearningRate
from granprune.masking import MaskedModel, evaluating, is_mask
from granprune.models.base import Prunable
from granprune.schedule import Never, Schedule
from granprune.shrink import Shrunk, can_shrink
from granprune.threads import limit_threads

log = logging.getLogger(__name__)


class Classifier(LightningModule):
    """Train a masked network with cross-entropy.

    Args:
        network: The network to prune.
        granularity: What one mask entry removes: Weights, Kernels, Channels, Nodes or Blocks.
        optimizer: The optimizer and its settings, e.g. `SGD`.
        learning_rate: How the optimizer's rate moves within a round.
        top_k: Also report how often the true class is among the `top_k` likeliest.
        compile: Compile the network with `torch.compile`.
        shrink: Train, and evaluate within the run, a ResNet20 or DBSN that is pruned by channels or
            nodes through what is kept of it: faster, and the same up to rounding, which a high
            learning rate lets grow. Other networks train whole.
    """

    def __init__(
        self,
        network: Prunable,
        granularity: Granularity,
        optimizer: OptimizerCallable = torch.optim.SGD,
        learning_rate: LearningRate = lazy_instance(Constant),
        top_k: PositiveInt = 1,
        compile: bool = False,
        shrink: bool = True,
    ) -> None:
        super().__init__()
        # Channels-last convolutions are faster on CPUs and GPUs; other layers do not notice.
        self.network = MaskedModel(network, granularity).to(memory_format=torch.channels_last)
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.top_k = top_k
        self.compile_network = compile
        self.shrink = shrink
        self.threads = torch.get_num_threads()
        self.schedule: Schedule = Never()  # the pruning callback brings the real one
        self.splits: dict[int, Split] = {}
        # Loss, correct, correct among top_k, samples: summed since the last evaluation. One small
        # tensor instead of metrics, which cost more than a small network's step.
        self.register_buffer("training_sums", torch.zeros(4, dtype=torch.float64))
        self.training_sums: Tensor
        local = [name for name, _ in self.named_buffers() if is_mask(name)]
        self._ddp_params_and_buffers_to_ignore = [*local, "training_sums"]  # read by DDP

    def setup(self, stage: str) -> None:
        data: ImageDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        self.check_shapes(data)
        on_cpu = self.trainer.strategy.root_device.type == "cpu"
        if on_cpu and stage == "fit":
            keep_freed_memory()
            limit_threads(data.batch_size * count(self.network, data.image_shape).dense_macs)
        if on_cpu and str(self.trainer.precision).startswith("bf16") and not cpu_has_bfloat16():
            log.warning(
                "this CPU has no bfloat16 instructions: trainer.precision %s is many times slower here than "
                "32-true",
                self.trainer.precision,
            )

    def teardown(self, stage: str) -> None:
        torch.set_num_threads(self.threads)

    def check_shapes(self, data: ImageDataModule) -> None:
        """Refuse images or labels that the network cannot take, before any training.

        Raises:
            UserError: With the shapes.
        """
        network = type(self.network.network).__name__
        try:
            with torch.no_grad(), evaluating(self.network):
                logits = self.network(torch.zeros(1, *data.image_shape, device=self.device))
        except RuntimeError as error:
            raise UserError(
                f"{network} cannot take images of shape {data.image_shape}: {str(error).splitlines()[0]}"
            ) from error
        if logits.shape != (1, data.num_classes):
            raise UserError(
                f"{network} puts out shape {tuple(logits.shape)} for one image; expected "
                f"(1, {data.num_classes}), a number a class"
            )
        if self.top_k > data.num_classes:
            raise UserError(f"model.top_k is {self.top_k}, but there are {data.num_classes} classes")

    def configure_model(self) -> None:
        if self.compile_network:
            self.network.compile()  # in place: the names in checkpoints stay the same

    def configure_optimizers(self) -> Any:
        try:
            optimizer = self.optimizer(self.parameters())
        except (ValueError, TypeError) as error:
            raise UserError(f"model.optimizer: {error}") from error
        for group in optimizer.param_groups:  # one pass over memory, unless the user has chosen
            if group.get("fused", True) is None and group["foreach"] is None:
                group["fused"] = True
        scheduler = LambdaLR(
            optimizer,
            lambda step: self.learning_rate.factor(self.schedule.position(step), self.schedule.steps),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def masks_changed(self) -> None:
        """Train through the smaller network that the present masks leave."""
        shrunk = self.shrink and can_shrink(self.network)
        self.network.stand_in = Shrunk(self.network).forward if shrunk else None

    def on_train_start(self) -> None:
        self.masks_changed()  # by what was loaded
        if not self.trainer.is_global_zero:
            self.training_sums.zero_()  # a checkpoint holds the sums of all ranks, for rank 0

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        logits = self.network(images).float()
        loss = F.cross_entropy(logits, labels)
        if loss.device.type == "cpu":  # reading it back from a GPU would stall each step
            self.check_loss("the training loss", loss.item())
        with torch.no_grad():
            hits = logits.topk(self.top_k).indices == labels[:, None]
            counts = loss.detach() * len(labels), hits[:, 0].sum(), hits.sum(), torch.tensor(len(labels))
            self.training_sums += torch.stack([c.to(self.training_sums) for c in counts])
        return loss

    def check_loss(self, name: str, loss: float) -> None:
        """Stop a run that has diverged.

        Raises:
            UserError: The loss is not finite.
        """
        if not math.isfinite(loss):
            raise UserError(
                f"{name} is {loss} at step {self.global_step}: lower the learning rate "
                f"(model.optimizer.init_args.lr) or check the data; the checkpoints before are intact"
            )

    def take_training_metrics(self) -> dict[str, float]:
        """Mean loss and accuracy since the last call, over all ranks."""
        self.gather_training_sums()
        sums = self.training_sums.clone()
        broadcast([sums])
        loss, top1, topk, samples = sums.tolist()
        self.check_loss("the training loss", loss)
        self.training_sums.zero_()
        if not samples:
            return {}
        metrics = {"train_loss": loss / samples, "train_accuracy": top1 / samples}
        if self.top_k > 1:
            metrics[f"train_top{self.top_k}_accuracy"] = topk / samples
        return metrics

    def gather_training_sums(self) -> None:
        """Move all ranks' sums to rank 0, whose state a checkpoint holds."""
        total = self.trainer.strategy.reduce(self.training_sums.clone(), reduce_op="sum")
        self.training_sums.copy_(total if self.trainer.is_global_zero else torch.zeros_like(total))

    def on_validation_epoch_start(self) -> None:
        self._start_splits(self.trainer.datamodule.evaluation_names)  # type: ignore[attr-defined]

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        # Within a run also evaluations go through the smaller network: the same up to rounding.
        smaller = None if self.compile_network else self.network.stand_in
        self.splits[dataloader_idx].update(smaller or self.network, *batch)

    def on_validation_epoch_end(self) -> None:
        self._log_splits()

    def on_test_epoch_start(self) -> None:
        self._start_splits(["test"])

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.splits[0].update(self.network, *batch)

    def on_test_epoch_end(self) -> None:
        self._log_splits()

    def _start_splits(self, names: list[str]) -> None:
        # Running statistics differ between ranks; evaluation and checkpoints go by rank 0's.
        broadcast(b for n, b in self.network.named_buffers() if not is_mask(n))
        classes = self.trainer.datamodule.num_classes  # type: ignore[attr-defined]
        self.splits = {i: Split(name, classes, self.top_k).to(self.device) for i, name in enumerate(names)}

    def _log_splits(self) -> None:
        for split in self.splits.values():
            self.log_dict(split.compute(), add_dataloader_idx=False)
        self.splits = {}


def cpu_has_bfloat16() -> bool:
    """Whether convolutions in bfloat16 are fast on this CPU, or only possible."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


class Split(nn.Module):
    """Loss and accuracy over one evaluation split; every sample counts once, whatever the ranks."""

    def __init__(self, name: str, num_classes: int, top_k: int) -> None:
        super().__init__()
        self.loss = MeanMetric(nan_strategy=math.nan)  # it must show, not be left out
        self.accuracy = nn.ModuleDict(
            {
                f"{name}_accuracy" if k == 1 else f"{name}_top{k}_accuracy": MulticlassAccuracy(
                    num_classes, top_k=k, average="micro"
                )
                for k in sorted({1, top_k})
            }
        )
        self.name = name

    def update(self, network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> None:
        """Take in a batch; an empty one only keeps the ranks in step."""
        if not len(labels):
            return
        logits = network(images).float()
        self.loss.update(F.cross_entropy(logits, labels), len(labels))
        for metric in self.accuracy.values():
            metric.update(logits, labels)  # type: ignore[operator]

    def compute(self) -> dict[str, Tensor]:
        """Metric name -> value over all ranks."""
        accuracy = {name: metric.compute() for name, metric in self.accuracy.items()}  # type: ignore[operator]
        return {f"{self.name}_loss": self.loss.compute(), **accuracy}
