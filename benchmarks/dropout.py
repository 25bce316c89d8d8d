"""A network that draws random numbers in training, so that a run which loses them ends differently."""

from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from granprune.models import Prunable, PrunableLayer


class DropoutNet(Prunable):
    """One hidden layer with batch normalisation and dropout.

    Args:
        num_classes: Outputs; the command line takes it from the data set.
        in_features: Pixels of one image.
        width: Hidden nodes.
    """

    def __init__(self, num_classes: int = 10, in_features: PositiveInt = 64, width: PositiveInt = 32) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, width)
        self.bn = nn.BatchNorm1d(width)
        self.act = nn.ReLU()
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.act(self.bn(self.linear(x.flatten(1))))))

    def prunable_layers(self) -> list[PrunableLayer]:
        return [PrunableLayer("linear", "act", "act"), PrunableLayer("head", role="head")]
