"""A classifier with everything needed to run it on a photograph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from captum_pullback.zoo.errors import ZooError
from captum_pullback.zoo.statefiles import fill

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Network",
    "Preprocess",
    "pixel_bounds",
    "preprocessing",
    "with_weights",
]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Network:
    """A classifier with everything needed to run it on a photograph.

    Attributes:
        model: In eval mode; maps ``(N, 3, H, W)`` to logits ``(N, classes)``.
        classes: A name for each logit; empty if they are unknown.
        preprocess: Turns a PIL image into the model's input, ``(3, input_size, input_size)``.
        mean: What ``preprocess`` subtracts from each channel of a picture in [0, 1].
        std: What it divides by afterwards.
        input_size: Height and width of the input, in pixels.
        name: Its name for ``load``.
        meta: Where the weights come from, and measurements of them.
    """

    model: nn.Module
    classes: tuple[str, ...]
    preprocess: Callable[[Image.Image], Tensor]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    input_size: int = 224
    name: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    def pixels(self, inputs: Tensor) -> Tensor:
        """Undo the normalization: model inputs ``(..., 3, H, W)`` to pixels in [0, 1]."""
        mean, std = (inputs.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (inputs * std + mean).clamp(0, 1)


def pixel_bounds(network: Network) -> tuple[Tensor, Tensor]:
    """Black and white, a number per channel, in the network's input space."""
    mean, std = torch.tensor(network.mean), torch.tensor(network.std)
    return (0 - mean) / std, (1 - mean) / std


@dataclass(frozen=True)
class Preprocess:
    """An image transform that converts any PIL image to RGB first."""

    transform: Callable[[Image.Image], Tensor]

    def __call__(self, image: Image.Image) -> Tensor:
        """Return the model's input, ``(3, size, size)``."""
        return self.transform(image.convert("RGB"))


def preprocessing(
    size: int,
    resize: int | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Preprocess:
    """Make a transform: resize the short side to ``resize``, crop the center, normalize.

    Args:
        size: Height and width of the result, in pixels.
        resize: The length of the short side before the crop, in pixels; None for ``size``.
        mean: The mean of each channel of a picture in [0, 1], which is subtracted.
        std: The standard deviation of each channel, by which it is divided afterwards.

    Returns:
        A function from a PIL image of any mode to a tensor (3, size, size).
    """
    steps = [transforms.Resize(resize or size), transforms.CenterCrop(size), transforms.ToTensor()]
    return Preprocess(transforms.Compose([*steps, transforms.Normalize(mean, std)]))


def with_weights(
    network: Network, weights: str | Path, state: Mapping[str, Tensor] | None = None
) -> Network:
    """Load the state dict in a file into a network, or keep the weights that it has.

    Args:
        network: The network. Its ``meta``, which describes other weights, is dropped.
        weights: A file, as `statefiles.read_state` reads it; or ``"random"`` to keep its own.
        state: The contents of the file, if they have been read already.

    Raises:
        ZooError: The file cannot be read, does not fit, or has NaN in it.
    """
    if weights != "random":
        try:
            fill(network.model, weights, state)
        except ZooError as error:
            raise ZooError(f"weights of {network.name!r}: {error}") from error
    return replace(network, meta={"weights": str(weights)})
