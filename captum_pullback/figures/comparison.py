"""Figures of attributions next to the photographs that they explain, for any Captum attribution.

Nothing here changes pyplot's global state: every function returns a `matplotlib.figure.Figure`,
to save, show in a notebook, or draw more into.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import IO, Any

import matplotlib as mpl
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from captum_pullback.figures.grids import image_grid
from captum_pullback.figures.panels import (
    COLORS,
    Array,
    Channels,
    Method,
    Sign,
    check_several,
    draw_attribution,
    draw_picture,
    scale_of,
    to_map,
    to_picture,
)

__all__ = [
    "COLORS",
    "draw_attribution",
    "draw_picture",
    "image_grid",
    "plot_attribution",
    "plot_comparison",
    "save_figure",
    "scale_of",
    "to_map",
    "to_picture",
]

_FOOTER = 0.25


def plot_attribution(
    attribution: Array,
    image: Array | None = None,
    *,
    mean: Channels = None,
    std: Channels = None,
    title: str = "Attribution",
    caption: str = "",
    label: str = "",
    method: Method = "heat_map",
    sign: Sign = "all",
    outlier_percent: float = 2.0,
) -> Figure:
    """Draw one attribution, next to its photograph if one is given.

    Args:
        attribution: (C, H, W), (1, C, H, W) or (H, W).
        image: As for `to_picture`, with ``mean`` and ``std``.
        mean: The network's mean per channel.
        std: The network's standard deviation per channel.
        title: Above the map.
        caption: Under the map.
        label: Under the photograph.
        method: See `draw_attribution`, as for ``sign`` and ``outlier_percent``.
        sign: See there.
        outlier_percent: See there.

    Returns:
        The figure, with a color scale at the bottom.

    Raises:
        ValueError: As `plot_comparison`.
    """
    if image is not None:
        return plot_comparison(
            [image],
            {title: [attribution]},
            mean=mean,
            std=std,
            labels=[label],
            captions={title: [caption]},
            method=method,
            sign=sign,
            outlier_percent=outlier_percent,
        )
    height, width = to_map(attribution).shape
    figure, axes = image_grid(
        1, 1, aspect=height / width, titles=[title], captions=[[caption]], footer=_FOOTER
    )
    draw_attribution(
        axes[0, 0], attribution, method=method, sign=sign, outlier_percent=outlier_percent
    )
    _draw_key(figure, method, sign)
    return figure


def plot_comparison(
    images: Array | Sequence[Array],
    attributions: Mapping[str, Array | Sequence[Array]],
    *,
    mean: Channels = None,
    std: Channels = None,
    labels: Sequence[str] = (),
    captions: Mapping[str, Sequence[str]] | None = None,
    method: Method = "heat_map",
    sign: Sign = "all",
    outlier_percent: float = 2.0,
) -> Figure:
    """Draw photographs, each in a row with its attributions by several methods.

    Every map has its own scale, since those of two methods have different units.

    Args:
        images: (N, C, H, W), or N of (C, H, W); as for `to_picture`, with ``mean`` and ``std``.
        attributions: For each method's title, its N attributions, in the images' order.
        mean: The network's mean per channel.
        std: The network's standard deviation per channel.
        labels: N texts, under the photographs.
        captions: N texts for each title, under the maps.
        method: See `draw_attribution`, as for ``sign`` and ``outlier_percent``.
        sign: See there.
        outlier_percent: See there.

    Returns:
        The figure: a row for each image, a column for each method, and a color scale.

    Raises:
        ValueError: Numbers of images, attributions and texts that differ, shapes that do not
            fit, or values that are not finite.
    """
    check_several(images)
    pictures = [to_picture(image, mean, std) for image in images]
    texts = {"labels": labels or [""] * len(pictures)}
    texts |= {title: (captions or {}).get(title) or [""] * len(pictures) for title in attributions}
    for title, column in [*texts.items(), *attributions.items()]:
        if len(column) != len(pictures):
            raise ValueError(f"{title!r}: {len(column)} for {len(pictures)} images")
    if not pictures:
        raise ValueError("no images to plot")
    figure, axes = image_grid(
        len(pictures),
        1 + len(attributions),
        aspect=max(p.shape[0] / p.shape[1] for p in pictures),
        titles=["Photograph", *attributions],
        captions=list(zip(*texts.values(), strict=True)),
        footer=_FOOTER,
    )
    for i, picture in enumerate(pictures):
        draw_picture(axes[i, 0], picture)
        for axis, maps in zip(axes[i, 1:], attributions.values(), strict=True):
            draw_attribution(
                axis, maps[i], picture, method=method, sign=sign, outlier_percent=outlier_percent
            )
    _draw_key(figure, method, sign)
    return figure


def save_figure(
    figure: Figure, file: str | os.PathLike[str] | IO[bytes], format: str, dpi: float = 200
) -> None:
    """Save as ``png``, ``pdf`` or ``svg``, the same bytes for the same figure each time.

    Text stays text in PDF and SVG. A figure too large for a PNG gets fewer dots per inch.

    Args:
        figure: A matplotlib figure.
        file: A path, or a file that is open for writing bytes.
        format: ``png``, ``pdf`` or ``svg``.
        dpi: Dots per inch of a PNG, and of the rasterized parts of the others.
    """
    dpi = min(dpi, 60_000 / max(figure.get_size_inches()))  # Agg draws at most 2**16 pixels
    rc: Any = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "captum_pullback"}
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    with mpl.rc_context(rc), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # it becomes a box
        figure.savefig(file, format=format, dpi=dpi, metadata=dates.get(format))


def _draw_key(figure: Figure, method: Method, sign: Sign) -> None:
    """Draw the color scale at the bottom right."""
    if method == "colors":
        return
    width, height = figure.get_size_inches()
    axis = figure.add_axes(((width - 0.95) / width, 0.18 / height, 0.6 / width, 0.07 / height))
    low = -1 if sign == "all" else 0
    mappable = ScalarMappable(Normalize(low, 1), COLORS[sign])
    bar = figure.colorbar(mappable, cax=axis, orientation="horizontal", ticks=[low, 0, 1])
    ends = {
        "all": ("\N{MINUS SIGN}", "+"),
        "positive": ("", "+"),
        "negative": ("", "\N{MINUS SIGN}"),
    }
    first, last = ends.get(sign, ("", "max"))
    bar.set_ticklabels([first, "0", last] if low else ["0", "", last])
    bar.outline.set_linewidth(0.4)
    axis.tick_params(labelsize=6.5, length=0, pad=2, colors="0.25")
