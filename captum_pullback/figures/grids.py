"""Grids of panels, spaced by the text that goes between them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from captum_pullback.figures.panels import bare

__all__ = ["image_grid"]


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
