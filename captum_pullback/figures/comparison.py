"""Figures of attributions beside the photographs that they explain, for any Captum attribution.

Nothing here changes pyplot's global state: every function returns a `matplotlib.figure.Figure`,
to save, show in a notebook, or draw more into.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import IO, Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from captum_pullback.figures.panels import (
    COLORS,
    Array,
    Channels,
    Method,
    Sign,
    bare,
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


def image_grid(
    rows: int,
    columns: int,
    *,
    aspect: float = 1.0,
    titles: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    cell: float = 1.75,
    header: float = 0.0,
    footer: float = 0.0,
) -> tuple[Figure, npt.NDArray[np.object_]]:
    """Return a figure of rows x columns empty axes, spaced by the text that goes between them.

    Args:
        rows: Number of rows.
        columns: Number of columns.
        aspect: Height over width of a cell.
        titles: One per column, above the first row.
        captions: For each row, one per column, under the cell. Lines are broken to the cell's
            width, and may be broken before with a newline.
        cell: Width of a cell, in inches.
        header: Inches left free at the top, above the titles.
        footer: Inches left free at the bottom.

    Returns:
        The figure and its axes, an array of shape (rows, columns).
    """
    gap, title_size, caption_size, leading = 0.1, 8.5, 7.0, 1.3
    titles = [_wrap(title, cell, title_size, 2) for title in titles]
    captions = [[_wrap(text, cell, caption_size, 6) for text in row] for row in captions]
    top = max([0, *(_lines(t) for t in titles)]) * title_size * leading / 72 + gap
    below = [
        max([0, *map(_lines, row)]) * caption_size * leading / 72 + gap / 2 for row in captions
    ]
    below += [0.0] * (rows - len(below))
    width = columns * cell + (columns + 1) * gap
    top += header
    height = top + rows * cell * aspect + sum(below) + (rows - 1) * gap + footer

    figure = Figure(figsize=(width, height))
    axes = np.empty((rows, columns), dtype=object)
    y = height - top
    for i in range(rows):
        y -= cell * aspect
        for j in range(columns):
            x = gap + j * (cell + gap)
            box = (x / width, y / height, cell / width, cell * aspect / height)
            axes[i, j] = figure.add_axes(box)
            bare(axes[i, j])
            style: Any = {"ha": "center", "parse_math": False, "linespacing": leading - 0.1}
            if i == 0 and j < len(titles):
                place = ((x + cell / 2) / width, (y + cell * aspect + 0.08) / height)
                figure.text(*place, titles[j], va="baseline", fontsize=title_size, **style)
            if i < len(captions) and j < len(captions[i]):
                place = ((x + cell / 2) / width, (y - 0.05) / height)
                text = figure.text(*place, captions[i][j], va="top", fontsize=caption_size, **style)
                text.set_color("0.25")
        y -= below[i] + gap
    return figure, axes


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
    """Draw one attribution, beside its photograph if that is given.

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


def _lines(text: str) -> int:
    return text.count("\n") + 1 if text else 0


def _wrap(text: str, inches: float, size: float, lines: int) -> str:
    """Break the text at spaces to the width, and cut it off after so many lines."""
    font = FontProperties(size=size)

    def fits(line: str) -> bool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            width, _, _ = text_to_path.get_text_width_height_descent(line, font, ismath=False)
        return bool(width <= inches * 72)

    def cut(line: str) -> str:
        while len(line) > 1 and not fits(line):
            line = line[:-2] + "\N{HORIZONTAL ELLIPSIS}"
        return line

    broken: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if line and not fits(longer):
                broken.append(line)
                longer = word
            line = longer
        broken.append(line)
    if len(broken) > lines:
        broken = [*broken[: lines - 1], broken[lines - 1] + " \N{HORIZONTAL ELLIPSIS}"]
    return "\n".join(cut(line) for line in broken) if text else ""
