"""Figures of perturbations: a grid of photographs x classes, and its animation over the steps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import IO, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from captum_pullback.figures.comparison import draw_attribution, draw_picture, image_grid, scale_of
from captum_pullback.figures.panels import Array, Channels, Floats, check_several, chw, to_picture

__all__ = [
    "Scale",
    "Show",
    "number",
    "perturbation_scales",
    "plot_ascent",
    "save_animation",
    "score_change",
]

Show: TypeAlias = Literal["perturbation", "photograph", "both"]
Scale: TypeAlias = Literal["row", "cell", "figure"]

_OWN = "#1b7837"


def plot_ascent(
    images: Array | Sequence[Array],
    grids: Mapping[str, Sequence[Sequence[Array]]],
    *,
    mean: Channels = None,
    std: Channels = None,
    titles: Sequence[str] = (),
    labels: Sequence[str] = (),
    captions: Mapping[str, Sequence[Sequence[str]]] | None = None,
    own: Collection[tuple[int, int]] = (),
    show: Show = "both",
    scale: Scale = "row",
    scales: Sequence[Sequence[float]] | None = None,
) -> Figure:
    """Draw photographs, each in a row with its perturbations for several classes.

    A perturbation is drawn in color around gray, in units of the pixels' range, and values beyond
    the scale are clipped, as in `scale_of`. The grids of several methods are drawn side by side and
    share the scale of their row.

    Args:
        images: R of (C, H, W); as for `to_picture`, with ``mean`` and ``std``.
        grids: For each method's title, R rows of K perturbations (C, H, W), in the images' space.
        mean: The network's mean per channel.
        std: The network's standard deviation per channel.
        titles: K texts, above the columns.
        labels: R texts, under the photographs.
        captions: R rows of K texts for each title, under the cells.
        own: The cells (row, column) to be framed: those of each photograph's own class.
        show: The perturbation, the perturbed photograph, or the one under the other.
        scale: What shares one color scale: a row, nothing (each cell has its own), or the whole
            figure.
        scales: The scales themselves, R rows of a number for each cell of all grids, as
            `perturbation_scales` gives them; None: from these perturbations.

    Raises:
        ValueError: Numbers that differ, shapes that do not fit, or values that are not finite.
    """
    check_several(images)
    pictures = [to_picture(image, mean, std) for image in images]
    for title, grid in grids.items():
        if len(grid) != len(pictures) or len({len(row) for row in grid}) != 1:
            raise ValueError(f"{title!r}: expected a row for each of {len(pictures)} images")
    if not pictures or not grids:
        raise ValueError("nothing to plot")
    columns = len(next(iter(grids.values()))[0])
    if scales is None:
        scales = perturbation_scales(grids, std, scale)
    both, wide = show == "both", len(grids) * columns > 5
    labels = [
        "\n".join([label, *_scale_text(row, scale, show)]).strip("\n")
        for label, row in zip(labels or [""] * len(pictures), scales, strict=True)
    ]
    texts = [
        ["" if both else label, *(t for g in grids for t in _row(captions, g, i, columns))]
        for i, label in enumerate(labels)
    ]
    figure, axes = image_grid(
        len(pictures) * (2 if both else 1),
        1 + len(grids) * columns,
        aspect=max(p.shape[0] / p.shape[1] for p in pictures),
        titles=["Photograph", *list(titles) * len(grids)],
        captions=[row for text in texts for row in ([[], text] if both else [text])],
        cell=1.2 if wide else 1.4,
        header=0.3 if len(grids) > 1 or "" not in grids else 0.0,
    )
    for i, picture in enumerate(pictures):
        rows = axes[2 * i : 2 * i + 2] if both else axes[i : i + 1]
        draw_picture(rows[0, 0], picture)
        if both:
            rows[1, 0].set_axis_off()
            rows[1, 0].text(
                0.5, 0.99, labels[i], va="top", ha="center", fontsize=7, color="0.25",
                linespacing=1.25, parse_math=False,
            )  # fmt: skip
        cells = [cell for grid in grids.values() for cell in grid[i]]
        for j, cell in enumerate(cells):
            delta = chw(cell, "perturbation")
            if show != "perturbation":
                perturbed = chw(images[i], "image") + delta
                draw_picture(rows[0, 1 + j], to_picture(perturbed, mean, std))
            if show != "photograph":
                pixels = delta * _per_channel(std)
                draw_attribution(rows[-1, 1 + j], pixels, method="colors", scale=scales[i][j])
            if (i, j % columns) in own:
                for axis in rows[:, 1 + j]:
                    _frame(axis)
    _head(figure, axes, list(grids), columns)
    return figure


def perturbation_scales(
    grids: Mapping[str, Sequence[Sequence[Array]]], std: Channels, scale: Scale
) -> list[list[float]]:
    """Return, for each row, the scale of each cell of all grids, in units of the pixels' range."""
    rows: list[list[Floats]] = []
    for row in zip(*grids.values(), strict=True):
        cells = [cell for part in row for cell in part]
        rows.append([chw(cell, "perturbation") * _per_channel(std) for cell in cells])
    if scale == "cell":
        return [[scale_of(cell) for cell in cells] for cells in rows]
    if scale == "row":
        return [[scale_of(*cells)] * len(cells) for cells in rows]
    if scale != "figure":
        raise ValueError(f"scale must be row, cell or figure, not {scale!r}")
    shared = scale_of(*(cell for cells in rows for cell in cells))
    return [[shared] * len(cells) for cells in rows]


def number(value: float | torch.Tensor) -> str:
    """Format a score or a length in a few characters, with a true minus sign."""
    value = float(value)
    text = f"{value:.1f}" if abs(value) < 1000 else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def score_change(before: float | torch.Tensor, after: float | torch.Tensor) -> str:
    """Return the caption of a cell: the target's score before and after."""
    return f"{number(before)} \N{RIGHTWARDS ARROW} {number(after)}"


def save_animation(
    figures: Iterable[Figure], file: IO[bytes], *, dpi: int = 100, seconds: float = 0.6
) -> None:
    """Write figures as the frames of a GIF that loops; the last frame stays longer."""
    frames = []
    for figure in figures:
        figure.set_dpi(dpi)
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    if not frames:
        raise ValueError("an animation needs at least one frame")
    # The last frame has the colors of all: what comes before is paler.
    palette = frames[-1].quantize(256, kmeans=5, dither=Image.Dither.NONE)
    drawn = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [round(1000 * seconds)] * (len(drawn) - 1) + [round(3000 * seconds)]
    drawn[0].save(
        file, "GIF", save_all=True, append_images=drawn[1:], duration=durations, loop=0,
        optimize=False,
    )  # fmt: skip


def _head(
    figure: Figure, axes: npt.NDArray[np.object_], methods: Sequence[str], columns: int
) -> None:
    """Draw the methods' titles above their grids, and a line between the grids."""
    height = figure.get_size_inches()[1]
    for number, method in enumerate(methods):
        first, last = (axes[0, 1 + number * columns + j].get_position() for j in (0, columns - 1))
        middle = (first.x0 + last.x1) / 2
        top = 1 - 0.2 / height
        figure.text(middle, top, method, ha="center", fontsize=9.5, parse_math=False)
        if number:
            before = axes[0, number * columns].get_position().x1
            x = (before + first.x0) / 2
            bottom = axes[-1, 0].get_position().y0
            top = 1 - 0.05 / height
            line = Line2D([x, x], [bottom, top], transform=figure.transFigure, color="0.6", lw=0.6)
            figure.add_artist(line)


def _frame(axis: Axes) -> None:
    for spine in axis.spines.values():
        spine.set(linewidth=1.8, color=_OWN)


def _row(
    captions: Mapping[str, Sequence[Sequence[str]]] | None, title: str, row: int, columns: int
) -> Sequence[str]:
    return captions[title][row] if captions and title in captions else [""] * columns


def _scale_text(row: Sequence[float], scale: Scale, show: Show) -> list[str]:
    if show == "photograph":
        return []
    if scale == "cell":
        return ["each perturbation", "on its own scale"]
    return [f"full color: \N{PLUS-MINUS SIGN}{row[0]:.2g}", "of the pixels' range"]


def _per_channel(std: Channels) -> Floats:
    values = torch.as_tensor([1.0] if std is None else std, dtype=torch.float64)
    return values.cpu().numpy().reshape(-1, 1, 1)
