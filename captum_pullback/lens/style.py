"""What the figures of a lens share: colors, axes and names of steps."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

__all__ = [
    "BETWEEN",
    "GRAY",
    "WITHIN",
    "class_colour",
    "depth_colour",
    "over_training",
    "plain",
    "shown_step",
    "spread",
]

WITHIN, BETWEEN, GRAY = "#b2182b", "#2166ac", "#777777"


def over_training(axis: Axes, steps: npt.NDArray[Any]) -> None:
    """A step axis that shows the first steps as well as the last ones."""
    axis.set_xscale("symlog", linthresh=1, linscale=0.5)
    axis.set_xlim(0, max(1, int(steps[-1])))
    last = int(steps[-1])
    ticks = [0, *(10**k for k in range(12) if 2 * 10**k < last), last]
    axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("training step")
    plain(axis)


def plain(axis: Axes) -> None:
    """No frame above and at the right, and small labels."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    axis.xaxis.label.set_fontsize(9)
    axis.yaxis.label.set_fontsize(9)


def class_colour(number: int, of: int) -> Any:
    """The color of a class, of so many."""
    return mpl.colormaps["tab10" if of <= 10 else "nipy_spectral"](
        number if of <= 10 else (number + 0.5) / of
    )


def depth_colour(number: int, of: int) -> Any:
    """The color of a layer, of so many."""
    return mpl.colormaps["viridis"](0.92 * number / max(1, of - 1))


def spread(count: int, most: int) -> list[int]:
    """Indices of at most so many of the entries, from first to last, evenly."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(most, count))})


def shown_step(step: int) -> str:
    """A step as titles have it."""
    return f"step {step:,}"
