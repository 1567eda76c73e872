"""Single panels: arrays prepared for drawing; a picture or an attribution drawn into an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import visualization
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

Array: TypeAlias = torch.Tensor | npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float64]
Channels: TypeAlias = Sequence[float] | Array | None
Sign: TypeAlias = Literal["all", "positive", "negative", "absolute_value"]
Method: TypeAlias = Literal["heat_map", "blended_heat_map", "colors"]

_BLUES = ["#053061", "#2166ac", "#67a9cf", "#ffffff"]
_REDS = ["#ffffff", "#ef8a62", "#b2182b", "#67001f"]
# An odd number of levels, so that 0 has one of its own and that one is white.
COLORS = {
    "all": LinearSegmentedColormap.from_list("signed", _BLUES[:-1] + _REDS, N=513),
    "positive": LinearSegmentedColormap.from_list("positive", _REDS),
    "negative": LinearSegmentedColormap.from_list("negative", _BLUES[::-1]),
    "absolute_value": LinearSegmentedColormap.from_list(
        "absolute", ["#ffffff", "#9e9ac8", "#3f007d"]
    ),
}


def to_picture(image: Array, mean: Channels = None, std: Channels = None) -> Floats:
    """Return an image as matplotlib and Captum expect it: (H, W, 3), in [0, 1].

    Args:
        image: (C, H, W) or (1, C, H, W), C 1 or 3, or the channels last. Floating point in
            [0, 1] after multiplying by ``std`` and adding ``mean`` (values beyond it by
            rounding or perturbation are clipped), or integers in [0, 255].
        mean: The network's mean per channel, in [0, 1]; None: the image is not normalized.
        std: Its standard deviation per channel.

    Raises:
        ValueError: Another shape, values that are not finite, or an image that was normalized
            where no mean and standard deviation are given.
    """
    values = chw(image, "image")
    if mean is not None or std is not None:
        values = values * _per_channel(std, 1.0) + _per_channel(mean, 0.0)
    elif _is_integer(image):
        values = values / 255
    elif values.min() < -0.01 or values.max() > 1.01:
        raise ValueError(
            f"the image's values lie in [{values.min():.3g}, {values.max():.3g}], not in [0, 1]; "
            "if it was normalized, pass the network's mean and std"
        )
    rgb: Floats = np.repeat(np.clip(values, 0, 1), 3 // len(values), axis=0).transpose(1, 2, 0)
    return rgb


def to_map(attribution: Array) -> Floats:
    """Sum an attribution over channels, (H, W).

    Args:
        attribution: (C, H, W), (1, C, H, W) or (H, W), of any number of channels; or the channels
            last, if it cannot be anything else: 3 of them, or 1 on a square, after sides of 4
            times as many pixels at least, such as (224, 224, 3).

    Raises:
        ValueError: Another shape, or values that are not finite.
    """
    summed: Floats = chw(attribution, "attribution").sum(axis=0)
    return summed


def scale_of(*values: Floats, outlier_percent: float = 2.0) -> float:
    """Return the magnitude that gets the full color, in one scale for all the maps given.

    This is Captum's rule: magnitudes up to the scale make up ``100 - outlier_percent`` percent
    of the sum of all magnitudes; those beyond it are clipped.

    Returns:
        The scale; 0.0 where all values are 0.
    """
    if not 0 <= outlier_percent < 100:
        raise ValueError(f"outlier_percent must be in [0, 100), not {outlier_percent}")
    magnitudes = np.sort(np.abs(np.concatenate([np.ravel(v) for v in values])))
    if magnitudes[-1] == 0:
        return 0.0
    shares = np.cumsum(magnitudes / magnitudes[-1])
    index = np.searchsorted(shares, shares[-1] * (1 - outlier_percent / 100))
    return float(magnitudes[min(index, len(magnitudes) - 1)])


def draw_picture(axis: Axes, picture: Floats) -> None:
    """Draw what `to_picture` made, (H, W, 3) in [0, 1], without ticks."""
    axis.imshow(picture, vmin=0, vmax=1)
    bare(axis)


def draw_attribution(
    axis: Axes,
    attribution: Array,
    picture: Floats | None = None,
    *,
    method: Method = "heat_map",
    sign: Sign = "all",
    scale: float | None = None,
    outlier_percent: float = 2.0,
) -> None:
    """Draw one attribution into a given axis.

    Args:
        axis: The axis to draw into.
        attribution: (C, H, W), (1, C, H, W) or (H, W).
        picture: (H, W, 3) in [0, 1], for ``blended_heat_map``.
        method: Captum's ``heat_map`` or ``blended_heat_map`` of the sum over channels; or
            ``colors``, the three channels as a color picture in which gray is 0.
        sign: Captum's: ``all`` (blue, white, red: negative, zero, positive), ``positive``,
            ``negative`` or ``absolute_value``. No effect on ``colors``.
        scale: The magnitude that gets the full color; None: by `scale_of`, from this map alone.
        outlier_percent: For `scale_of`.

    Raises:
        ValueError: A shape that does not fit, or values that are not finite.
    """
    if method == "colors":
        values = chw(attribution, "attribution")
        scale = scale_of(values, outlier_percent=outlier_percent) if scale is None else scale
        draw_picture(axis, to_picture(relative(values, scale), [0.5] * 3, [0.5] * 3))
        return
    values = _signed(to_map(attribution), sign)
    scale = scale_of(values, outlier_percent=outlier_percent) if scale is None else scale
    values = relative(values, scale)
    peak = float(np.abs(values).max())
    low, high = (-1.0, 1.0) if sign == "all" else (0.0, 1.0)
    if method == "blended_heat_map" and (picture is None or picture.shape[:2] != values.shape):
        size = None if picture is None else picture.shape[:2]
        raise ValueError(
            f"blended_heat_map needs a picture of the map's size {values.shape}, not {size}; "
            "captum.attr.LayerAttribution.interpolate resizes a map"
        )
    if peak < 1e-3:  # less than one shade of 256; Captum asserts that a map is not all 0
        if picture is not None and method == "blended_heat_map":
            draw_picture(axis, np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2))
        else:
            axis.imshow(values, cmap=COLORS[sign], vmin=low, vmax=high)
    else:
        visualization.visualize_image_attr(
            values,
            picture,
            method,
            "all" if sign == "all" else "positive",  # the sign has been handled
            (axis.figure, axis),
            outlier_perc=1e-7,  # less than any pixel's share; at 0 Captum may fail by rounding
            cmap=COLORS[sign],
            use_pyplot=False,
        )
        # Captum divides by the map's own peak; this gives a scale shared with others back.
        axis.images[-1].set_clim(low / peak, high / peak)
    bare(axis)


def chw(values: Array, what: Literal["image", "perturbation", "attribution"]) -> Floats:
    """Return an image, perturbation or attribution as (C, H, W); its channels may come last.

    Args:
        values: As for `to_picture`, or, for an attribution, as for `to_map`.
        what: An attribution may have any number of channels, the others have 1 or 3.

    Raises:
        ValueError: Another shape, or values that are not finite.
    """
    tensor = torch.as_tensor(values).detach().cpu()
    array = (tensor.double() if tensor.is_floating_point() else tensor).numpy()
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.size == 0:
        more = {4: "of a batch, give one", 5: "of a volume or a video, give one slice"}
        raise ValueError(
            f"one {what} must have shape (C, H, W), (1, C, H, W) or (H, W), "
            f"not {tuple(tensor.shape)}"
            + (f": {more[tensor.dim()]}" if tensor.dim() in more and array.size else "")
        )
    if _is_channels_last(array.shape, what == "attribution"):
        array = array.transpose(2, 0, 1)
    if what != "attribution" and array.shape[0] not in (1, 3):
        raise ValueError(
            f"one {what} must have 1 or 3 channels, not {array.shape[0]}: expected (C, H, W) or "
            f"(H, W, C), and its shape is {tuple(tensor.shape)}"
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise ValueError(f"{count} of the {what}'s {array.size} values are NaN or infinite")
    return array


def check_several(images: Array | Sequence[Array]) -> None:
    """Raise ValueError for a tensor that is one image: its channels would be taken for images."""
    if isinstance(images, torch.Tensor | np.ndarray) and images.ndim != 4:
        raise ValueError(
            f"images must be a tensor (N, C, H, W) or a list of (C, H, W), not a tensor of shape "
            f"{tuple(images.shape)}: put one image alone in a list"
        )


def _is_channels_last(shape: tuple[int, ...], any_channels: bool) -> bool:
    first, second, last = shape
    if last not in (1, 3) or first in (1, 3):
        return False
    # An attribution to a layer has any number of channels: 64 of them at 7 x 3 are (64, 7, 3).
    picture = min(first, second) >= 4 * last and (last == 3 or first == second)
    return picture or not any_channels


def _is_integer(image: Array) -> bool:
    return not torch.as_tensor(image).is_floating_point()


def _per_channel(values: Channels, default: float) -> Floats:
    numbers = [default] if values is None else values
    return torch.as_tensor(numbers, dtype=torch.float64).cpu().numpy().reshape(-1, 1, 1)


def _signed(values: Floats, sign: Sign) -> Floats:
    if sign not in COLORS:
        raise ValueError(f"sign must be one of {', '.join(COLORS)}, not {sign!r}")
    if sign == "all":
        return values
    if sign == "positive":
        return np.maximum(values, 0)
    return np.abs(np.minimum(values, 0) if sign == "negative" else values)


def relative(values: Floats, scale: float) -> Floats:
    """Divide values by the scale and clip them to [-1, 1]; any scale above 0 will do."""
    if scale == 0:
        return np.zeros_like(values)
    return np.clip(values, -scale, scale) / scale


def bare(axis: Axes) -> None:
    """Remove the ticks, and leave a thin gray frame."""
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(linewidth=0.5, color="0.75")
