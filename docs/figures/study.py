"""The picture of the study of temperatures, from the committed results."""

from __future__ import annotations

from pathlib import Path

from drawing import PALETTES, Palette, legend, plain, save
from matplotlib.figure import Figure

from benchmarks.temperature_page import CHOSEN, GRADIENT, INTEGRATED, PUBLISHED, networks, times

NAMES = {
    INTEGRATED: "Integrated Gradients, 50 steps",
    PUBLISHED: "pullback, T = 0.3",
    CHOSEN: "pullback, the default",
}


def held_back(palette: Palette) -> Figure:
    """Infidelity over the gradient's, with intervals, on each network that was not chosen with."""
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    axis = figure.subplots()
    found = networks("report")
    colors = (palette.ink, palette.blue, palette.red)
    for place, ((method, name), color) in enumerate(zip(NAMES.items(), colors, strict=True)):
        estimates = [times("report", network, method, GRADIENT) for network in found]
        axis.errorbar(
            [each.value for each in estimates],
            [row + 0.22 * (1 - place) for row in range(len(found), 0, -1)],
            xerr=[
                [each.value - each.low for each in estimates],
                [each.high - each.value for each in estimates],
            ],
            fmt="o", color=color, ms=6, lw=1.5, label=name,
        )  # fmt: skip
    axis.axvline(1.0, color=palette.faint, lw=1, ls=(0, (4, 3)), zorder=0)
    axis.set(
        yticks=range(len(found), 0, -1), yticklabels=found, xlim=(0.25, None),
        xlabel="infidelity over the plain gradient's (left is better)",
    )  # fmt: skip
    legend(axis, palette, loc="lower center", bbox_to_anchor=(0.4, 1), ncols=3, borderaxespad=0)
    plain(axis, palette)
    return figure


def main(folder: Path, theme: str) -> None:
    """Draws it."""
    save(held_back(PALETTES[theme]), folder, "held_back", theme)
