"""What the drawn pictures share: two palettes, one for each theme, and SVG without a ground."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Palette:
    """Colors of one theme; ``series`` goes from hard gates to soft ones."""

    ink: str
    faint: str
    ground: str
    red: str
    blue: str
    series: tuple[str, ...]


PALETTES = {
    "light": Palette(
        "#222222", "#c4c4c4", "#ffffff", "#b2182b", "#2166ac",
        ("#222222", "#6a51a3", "#c51b7d", "#e6851e"),
    ),
    "dark": Palette(
        "#e6e6e6", "#5a5a5a", "#131416", "#ff8a80", "#7ab8f5",
        ("#e6e6e6", "#b39ddb", "#f48fb1", "#ffb74d"),
    ),
}  # fmt: skip


def plain(axis: Axes, palette: Palette) -> None:
    """Two spines and small ticks, in the palette's ink."""
    axis.patch.set_alpha(0)
    for side, spine in axis.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(palette.ink)
    axis.tick_params(labelsize=8, colors=palette.ink)
    for text in (axis.xaxis.label, axis.yaxis.label, axis.title):
        text.set_color(palette.ink)
        text.set_fontsize(9)


def legend(axis: Axes, palette: Palette, **where: Any) -> None:
    """A frameless legend."""
    axis.legend(frameon=False, fontsize=8, labelcolor=palette.ink, **where)


def save(figure: Figure, folder: Path, name: str, theme: str) -> None:
    """Writes ``name-theme.svg``, the same bytes each time, text as outlines."""
    folder.mkdir(exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        path = folder / f"{name}-{theme}.svg"
        figure.savefig(path, transparent=True, metadata={"Date": None})
