"""Photographs and maps as small PNGs, embedded in the page without files."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from captum_pullback.figures.panels import (
    COLORS,
    Floats,
    Method,
    relative,
    scale_of,
    to_map,
    to_picture,
)
from captum_pullback.zoo.networks import Network

__all__ = ["data_uri", "map_picture", "perturbation_picture", "photograph", "thumbnail"]

_SIDE = 288  # pixels, of a picture that is enlarged smoothly
_GRAY = np.array([0.299, 0.587, 0.114])


def photograph(network: Network, inputs: Tensor) -> Image.Image:
    """Return the network's input (C, H, W) as a picture of the same size."""
    return _image(to_picture(inputs.cpu(), network.mean, network.std))


def map_picture(
    network: Network, inputs: Tensor, attribution: Tensor, method: Method
) -> Image.Image:
    """Return an attribution in the colors of `plots.draw_attribution`, in its own resolution.

    As an overlay it is enlarged, and more opaque where its magnitude is larger. A hidden layer has
    no colors of its own: it is drawn as a heat map instead.
    """
    if method == "colors" and len(attribution) == 3:
        values = attribution.double().numpy()
        return _image(to_picture(relative(values, scale_of(values)) / 2 + 0.5))
    values = to_map(attribution)
    values = relative(values, scale_of(values))
    if method != "blended_heat_map":
        return _image(_colored(values))
    picture = to_picture(inputs.cpu(), network.mean, network.std)
    side = max(_SIDE, *picture.shape[:2])
    photo = np.asarray(_image(picture).resize((side, side), Image.Resampling.BICUBIC)) / 255
    gray = (photo @ _GRAY)[..., None] * 0.75 + 0.2
    large = Image.fromarray(values.astype(np.float32)).resize(
        (side, side), Image.Resampling.BILINEAR
    )
    values = np.asarray(large, dtype=np.float64)
    cover = np.clip(np.abs(values)[..., None] ** 0.7 * 1.3, 0, 0.92)
    return _image(gray * (1 - cover) + _colored(values) * cover)


def perturbation_picture(network: Network, perturbation: Tensor) -> tuple[Image.Image, float]:
    """Return a perturbation (C, H, W) in colors around gray, and the value at full color."""
    pixels = (perturbation * torch.tensor(network.std).view(-1, 1, 1)).double().numpy()
    scale = scale_of(pixels)
    return _image(to_picture(relative(pixels, scale) / 2 + 0.5)), scale


def thumbnail(image: Image.Image, side: int = 112) -> Image.Image:
    """Return the central square, small."""
    edge = min(image.size)
    left, top = ((length - edge) // 2 for length in image.size)
    return image.crop((left, top, left + edge, top + edge)).resize((side, side))


def data_uri(image: Image.Image, kind: str = "PNG") -> str:
    """Return a picture as a data URI; ``kind`` is PNG or JPEG."""
    file = io.BytesIO()
    options: dict[str, Any] = {"quality": 85} if kind == "JPEG" else {"optimize": True}
    image.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _colored(values: Floats) -> Floats:
    rgb: Floats = COLORS["all"]((values + 1) / 2)[..., :3]
    return rgb


def _image(picture: npt.NDArray[np.floating[Any]]) -> Image.Image:
    return Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))
