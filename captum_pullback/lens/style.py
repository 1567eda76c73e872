"""The common style of a lens's figures: colors, axes and names of steps."""

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
    "class_color",
    "depth_color",
    "over_training",
    "plain",
    "shown_step",
    "spread",
]

WITHIN, BETWEEN, GRAY = "#b2182b", "#2166ac", "#777777"


def over_training(axis: Axes, steps: npt.NDArray[Any]) -> None:
    """Scale the step axis so that the first steps are visible as well as the last ones."""
    axis.set_xscale("symlog", linthresh=1, linscale=0.5)
    axis.set_xlim(0, max(1, int(steps[-1])))
    last = int(steps[-1])
    ticks = [0, *(10**k for k in range(12) if 2 * 10**k < last), last]
    axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("training step")
    plain(axis)


def plain(axis: Axes) -> None:
    """Remove the frame above and at the right, and shrink the labels."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    axis.xaxis.label.set_fontsize(9)
    axis.yaxis.label.set_fontsize(9)


def class_color(number: int, of: int) -> Any:
    """Return the color of one of so many classes."""
    return mpl.colormaps["tab10" if of <= 10 else "nipy_spectral"](
        number if of <= 10 else (number + 0.5) / of
    )


def depth_color(number: int, of: int) -> Any:
    """Return the color of one of so many layers."""
    return mpl.colormaps["viridis"](0.92 * number / max(1, of - 1))


def spread(count: int, most: int) -> list[int]:
    """Return evenly spaced indices, at most so many, from the first entry to the last."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(most, count))})


def shown_step(step: int) -> str:
    """Return a step as titles show it."""
    return f"step {step:,}"
