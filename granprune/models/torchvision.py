"""Torchvision's classifiers, as they are or fitted to 32x32 images."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from granprune.errors import UserError
from granprune.models.traced import Traced


class Torchvision(Traced):
    """A classifier of torchvision, untrained: resnet18, resnet50, vgg16_bn, mobilenet_v2 and others.

    All convolutions and linear layers are prunable, the classifier and shortcuts included, unless
    named in `dense`.

    Args:
        num_classes: Outputs of the classifier; the command line takes it from the data set.
        name: The network, as torchvision calls it.
        cifar_stem: Fit the network to 32x32 images. ResNets get a 3x3 stem of stride 1 without
            pooling, VGGs one linear layer as classifier, MobileNetV2 stride 1 in its stem and its
            first strided block.
        options: Further arguments of torchvision's function, as in `{width_mult: 0.5}`.
        dense: Layers that always stay dense: names or regular expressions, as in `fc` or
            `.*downsample.*`.

    Raises:
        UserError: Torchvision has no such network, or it has no form for 32x32 images.
    """

    def __init__(
        self,
        num_classes: int = 10,
        name: str = "resnet18",
        cifar_stem: bool = False,
        options: Mapping[str, Any] | None = None,
        dense: Sequence[str] = (),
    ) -> None:
        from torchvision import models

        names = models.list_models(module=models)
        if name not in names:
            raise UserError(f"model.network.name: torchvision has no {name!r}; it has {', '.join(names)}")
        network = models.get_model(name, weights=None, num_classes=num_classes, **(options or {}))
        if cifar_stem:
            _fit_to_cifar(network, name, num_classes)
        super().__init__(network, dense)


def _fit_to_cifar(network: Any, name: str, num_classes: int) -> None:
    from torchvision import models

    if isinstance(network, models.ResNet):
        network.conv1 = nn.Conv2d(3, network.conv1.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()
    elif isinstance(network, models.VGG):
        network.avgpool = nn.AdaptiveAvgPool2d(1)
        network.classifier = nn.Linear(512, num_classes)
        nn.init.normal_(network.classifier.weight, 0, 0.01)
        nn.init.zeros_(network.classifier.bias)
    elif isinstance(network, models.MobileNetV2):
        network.features[0][0].stride = (1, 1)
        network.features[2].conv[1][0].stride = (1, 1)
    else:
        raise UserError(
            f"model.network.cifar_stem: {name} has no form for 32x32 images; ResNets, VGGs and "
            "mobilenet_v2 have one"
        )
