"""Effective weights in two dimensions: a figure of four steps, and an animation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_pullback.lens.arrays import Floats
from captum_pullback.lens.style import class_color, shown_step, spread

__all__ = ["animate", "trajectory_figure"]


def trajectory_figure(
    places: Floats, labels: npt.ArrayLike, steps: Sequence[int], classes: Sequence[str], kind: str
) -> Figure:
    """Draw the effective weights in two dimensions at four steps.

    Args:
        places: What `TrainingLens.projection` gives, (S, N, 2).
        labels: Classes of the examples, (N,).
        steps: The steps, (S,).
        classes: The classes' names.
        kind: The name of the projection, for the axes.
    """
    shown = spread(len(steps), 4)
    figure = Figure(figsize=(10, 3.1), layout="constrained")
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    for axis, s in zip(axes, shown, strict=True):
        _cloud(axis, places, np.asarray(labels), int(s), classes)
        axis.set_title(shown_step(steps[s]), fontsize=9)
    axes[0].set_ylabel(kind, fontsize=9)
    if len(classes) <= 24:
        handles, names = axes[-1].get_legend_handles_labels()
        figure.legend(
            handles, names, loc="outside right center", fontsize=7, frameon=False,
            markerscale=1.6, handletextpad=0.1, ncols=1 + (len(classes) > 12),
        )  # fmt: skip
    return figure


def animate(
    path: Path,
    places: Floats,
    labels: npt.ArrayLike,
    steps: Sequence[int],
    classes: Sequence[str],
    between: int = 6,
) -> None:
    """Write an animated GIF of the trajectories.

    Args:
        path: The file.
        places: As for `trajectory_figure`, (S, N, 2), as are ``labels``, ``steps`` and ``classes``.
        labels: See there.
        steps: See there.
        classes: See there.
        between: Frames from one step to the next.
    """
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axis = figure.subplots()
    at = np.linspace(0, len(places) - 1, (len(places) - 1) * between + 1)
    frames = [*at, *[at[-1]] * (3 * between)]

    def draw(position: float) -> list[Any]:
        axis.clear()
        first = min(int(position), len(places) - 2)
        part = position - first
        now = (1 - part) * places[first] + part * places[first + 1]
        _cloud(axis, np.concatenate([places, now[None]]), np.asarray(labels), -1, classes)
        axis.set_title(shown_step(round((1 - part) * steps[first] + part * steps[first + 1])))
        return []

    animation = FuncAnimation(figure, draw, frames=frames, interval=60, blit=False)
    animation.save(str(path), writer=PillowWriter(fps=15), dpi=80)


def _cloud(
    axis: Axes, places: Floats, labels: npt.NDArray[Any], step: int, classes: Sequence[str]
) -> None:
    for k, label in enumerate(np.unique(labels)):
        x, y = places[step, labels == label].T
        axis.plot(x, y, "o", ms=2.8, mew=0, alpha=0.8, color=class_color(k, len(classes)),
                  label=classes[k])  # fmt: skip
    low, high = places.min((0, 1)), places.max((0, 1))
    pad = 0.05 * (high - low)
    axis.set_xlim(low[0] - pad[0], high[0] + pad[0])
    axis.set_ylim(low[1] - pad[1], high[1] + pad[1])
    axis.set_xticks([])
    axis.set_yticks([])
