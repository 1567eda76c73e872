"""The families of torchvision's classifiers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from references.networks import CASES
from torch import nn
from torchvision.models import mobilenetv3, regnet, resnet, vgg
from torchvision.models.alexnet import AlexNet
from torchvision.models.densenet import DenseNet
from torchvision.models.googlenet import GoogLeNet
from torchvision.models.inception import Inception3
from torchvision.models.maxvit import MaxVit
from torchvision.models.mnasnet import MNASNet
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.models.shufflenetv2 import ShuffleNetV2
from torchvision.models.squeezenet import SqueezeNet

from families.family import Family, of_pictures


def _head(features: int) -> nn.Sequential:
    """The classifier of VGG and AlexNet, without its hundred million weights."""
    return nn.Sequential(
        nn.Linear(features, 8),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(8, 8),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(8, 3),
    )


def _alexnet() -> nn.Module:
    with torch.device("meta"):
        model = AlexNet()
        model.classifier = _head(256 * 6 * 6)
    return model.to_empty(device="cpu")


def _vgg(batch_norm: bool) -> nn.Module:
    layers: list[str | int] = [8, "M", 12, 12, "M", 16, "M"]
    with torch.device("meta"):
        model = vgg.VGG(vgg.make_layers(layers, batch_norm), init_weights=False)
        model.classifier = _head(16 * 7 * 7)
    return model.to_empty(device="cpu")


def _mobilenet_v2() -> nn.Module:
    blocks = [[1, 8, 1, 1], [6, 8, 2, 2], [6, 16, 1, 2]]
    return MobileNetV2(3, 0.25, blocks)


def _mobilenet_v3() -> nn.Module:
    block = partial(mobilenetv3.InvertedResidualConfig, width_mult=1.0)
    blocks = [
        block(8, 3, 8, 8, True, "RE", 2, 1),
        block(8, 3, 24, 16, False, "RE", 2, 1),
        block(16, 5, 32, 16, True, "HS", 1, 1),
        block(16, 5, 32, 16, True, "HS", 1, 2),
    ]
    return mobilenetv3.MobileNetV3(blocks, 24, 3)


def _regnet(squeeze: float | None) -> nn.Module:
    blocks = regnet.BlockParams([1, 2], [8, 16], [4, 8], [1.0, 1.0], [2, 2], squeeze)
    return regnet.RegNet(blocks, 3, 8)


def _maxvit() -> nn.Module:
    return MaxVit((32, 32), 8, 4, [8, 16], [1, 1], 4, 0.1, num_classes=3)


def _googlenet() -> nn.Module:
    return GoogLeNet(3, aux_logits=False, transform_input=True, init_weights=False)


def _inception_v3() -> nn.Module:
    return Inception3(3, aux_logits=False, init_weights=False)


PICTURES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "alexnet": (_alexnet, 63),
    "densenet": (lambda: DenseNet(4, (2, 2), 8, 2, num_classes=3), 32),
    "googlenet": (_googlenet, 32),
    "inception_v3": (_inception_v3, 75),
    "maxvit": (_maxvit, 32),
    "mnasnet": (lambda: MNASNet(0.35, 3), 32),
    "mobilenet_v3": (_mobilenet_v3, 32),
    "regnet_x": (partial(_regnet, None), 32),
    "regnet_y": (partial(_regnet, 0.25), 32),
    "resnet": (lambda: resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], 3), 32),
    "resnext": (lambda: resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], 3, False, 32, 4), 32),
    "shufflenet_v2": (lambda: ShuffleNetV2([1, 2, 1], [8, 16, 32, 64, 64], 3), 32),
    "squeezenet": (lambda: SqueezeNet("1_1", 3), 32),
    "vgg": (partial(_vgg, False), 32),
    "vgg_bn": (partial(_vgg, True), 32),
}


def _referenced(name: str) -> Family:
    model, _, x = CASES[name]()
    return Family(model, x)


FAMILIES: dict[str, Callable[[], Family]] = {
    **{name: lambda m=make, s=size: of_pictures(m(), s) for name, (make, size) in PICTURES.items()},
    "mobilenet_v2": lambda: of_pictures(_mobilenet_v2(), 32, spread=4),  # beyond ReLU6's cap
    **{
        name: partial(_referenced, name)
        for name in ("vit", "vit_tanh", "convnext", "efficientnet", "swin", "swin_v2")
    },
}
