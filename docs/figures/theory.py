"""The pictures of the page on excitation pullbacks, computed by the package."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from drawing import PALETTES, Palette, legend, plain, save
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from benchmarks.networks import without_batch_norm
from captum_pullback import ExcitationPullback, soften
from captum_pullback.fit.candidates import gate_spreads
from captum_pullback.zoo import reference_network
from captum_pullback.zoo.photos import SAMPLES, sample_photo

TEMPERATURES = (0.0, 0.3, 1.0, 3.0)
LIMITS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


def derivative(operation: Callable[[Tensor], Tensor], x: Tensor, temperature: float) -> Tensor:
    """What the package passes back through an operation of one variable."""
    leaf = x.clone().requires_grad_()
    with soften(operation, temperature):
        return torch.autograd.grad(operation(leaf.clone()).sum(), leaf)[0]


def gates(palette: Palette) -> Figure:
    """Forward: one curve for all temperatures. Backward: a step that softens."""
    figure = Figure(figsize=(7.2, 2.7), layout="constrained")
    forward, backward = figure.subplots(1, 2)
    z = torch.linspace(-3, 3, 401)
    forward.plot(z, torch.relu(z), color=palette.ink, lw=2)
    forward.set(title="forward: max(z, 0) at every T", xlabel="pre-activation z")
    for temperature, color in zip(TEMPERATURES, palette.series, strict=True):
        name = f"T = {temperature:g}"
        slope = derivative(torch.relu, z, temperature)
        backward.plot(z, slope, color=color, lw=2, label=name)
    backward.axhline(0.5, color=palette.faint, lw=1, ls=(0, (4, 3)), label="T = ∞", zorder=0)
    backward.set(title="backward: what the gate passes on", xlabel="pre-activation z")
    legend(backward, palette, loc="lower right", borderaxespad=0, labelspacing=0.25)
    for axis in (forward, backward):
        plain(axis, palette)
    return figure


@functools.cache
def small_network() -> tuple[nn.Sequential, Tensor]:
    """Two inputs, two layers of four units, one output; and an input."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = nn.Sequential(
            nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1)
        )
    return network, torch.tensor([[1.0, -0.7]])


def paths(palette: Palette) -> Figure:
    """The paths of a small network from its inputs to its output, gated hard and soft."""
    network, x = small_network()
    with torch.no_grad():
        z = [network[:1](x)[0], network[:3](x)[0]]
    figure = Figure(figsize=(7.2, 2.7), layout="constrained")
    titles = {
        0.0: "hard: a gate is open or closed",
        0.3: "soft: every gate passes a share, T = 0.3",
    }
    for axis, (temperature, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        passed = [derivative(torch.relu, part, temperature) for part in z]
        _draw_network(axis, palette, passed)
        axis.set_title(title, fontsize=9, color=palette.ink)
    return figure


def _draw_network(axis: Axes, palette: Palette, passed: list[Tensor]) -> None:
    layers = [torch.ones(2), *passed, torch.ones(1)]
    places = [np.linspace(-1, 1, len(layer)) if len(layer) > 1 else [0.0] for layer in layers]
    for column, (left, right) in enumerate(itertools.pairwise(layers)):
        for i, a in enumerate(left):
            for j, b in enumerate(right):
                share = float(a * b)
                ends = (places[column][i], places[column + 1][j])
                axis.plot((column, column + 1), ends, color=palette.faint, lw=0.6, zorder=1)
                if share > 0:
                    axis.plot(
                        (column, column + 1), ends, color=palette.red, lw=0.3 + 2.2 * share,
                        alpha=share, zorder=2, solid_capstyle="round",
                    )  # fmt: skip
    for column, (layer, heights) in enumerate(zip(layers, places, strict=True)):
        for share, height in zip(layer, heights, strict=True):
            edge = palette.ink if 0 < column < len(layers) - 1 else palette.faint
            axis.plot(column, height, "o", ms=17, color=palette.ground, mec=edge, zorder=3)
            if 0 < column < len(layers) - 1:
                text = f"{float(share):.2f}" if 0 < share < 1 else f"{float(share):.0f}"
                axis.text(
                    column, height, text, ha="center", va="center", fontsize=6.5,
                    color=palette.ink, zorder=4,
                )  # fmt: skip
    for column, name in enumerate(("inputs", "gates", "gates", "output")):
        axis.text(column, -1.45, name, ha="center", fontsize=8, color=palette.ink)
    axis.set(xlim=(-0.3, 3.3), ylim=(-1.6, 1.3))
    axis.axis("off")


@functools.cache
def limits_of_temperature() -> tuple[list[float], list[float]]:
    """Mean cosine of the pullback with the plain gradient, and with that of all gates at 1/2."""
    network = reference_network()
    inputs = torch.stack([network.preprocess(sample_photo(name)) for name in SAMPLES])
    with torch.no_grad():
        targets = network.model(inputs).argmax(1)

    pullback = ExcitationPullback(network.model)
    maps = pullback.attribute_temperatures(inputs, [0.0, *LIMITS, float("inf")], targets)
    hard, *soft, half = maps.flatten(2)
    curves: tuple[list[float], list[float]] = ([], [])
    for curve, end in zip(curves, (hard, half), strict=True):
        curve += [float(torch.cosine_similarity(each, end).mean()) for each in soft]
    return curves


def limits(palette: Palette) -> Figure:
    """Between the plain gradient and a linear network."""
    figure = Figure(figsize=(5.2, 2.8), layout="constrained")
    axis = figure.subplots()
    hard, half = limits_of_temperature()
    axis.plot(LIMITS, hard, "o-", ms=4, color=palette.blue, label="with the plain gradient (T = 0)")
    axis.plot(LIMITS, half, "o-", ms=4, color=palette.red, label="with all gates at 1/2 (T = ∞)")
    axis.set_xscale("log")
    axis.set_xticks(LIMITS, [f"{value:g}" for value in LIMITS])
    axis.set_xticks([], minor=True)
    axis.set(xlabel="temperature T", ylabel="cosine similarity", ylim=(-0.05, 1.05))
    plain(axis, palette)
    legend(axis, palette, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure


def pooling(palette: Palette) -> Figure:
    """What each entry of one pooling window receives of the gradient."""
    window = torch.tensor([1.0, 0.9, 0.3, -0.5])
    figure = Figure(figsize=(6.4, 2.6), layout="constrained")
    axis = figure.subplots()
    width = 0.2
    for number, (temperature, color) in enumerate(zip(TEMPERATURES, palette.series, strict=True)):
        leaf = window.clone().view(1, 1, 4).requires_grad_()
        with soften(torch.nn.functional.max_pool1d, temperature):
            pooled = torch.nn.functional.max_pool1d(leaf.clone(), 4)
            (share,) = torch.autograd.grad(pooled.sum(), leaf)
        name = "T = 0, the maximum alone" if not temperature else f"T = {temperature:g}"
        places = np.arange(4) + (number - 1.5) * width
        axis.bar(places, share.flatten(), width * 0.9, color=color, label=name)
    axis.axhline(0, color=palette.ink, lw=0.8)
    axis.set_xticks(range(4), [f"x = {float(x):g}" for x in window])
    axis.set(ylabel="share of the gradient")
    plain(axis, palette)
    legend(axis, palette, loc="upper right")
    return figure


@functools.cache
def spreads() -> dict[str, list[float]]:
    """The standard deviation of each gate's input, in the order of running."""
    networks = {"with BatchNorm": reference_network(), "without BatchNorm": without_batch_norm()}
    found = {}
    for title, network in networks.items():
        inputs = torch.stack([network.preprocess(sample_photo(name)) for name in SAMPLES])
        by_module = gate_spreads(network.model, inputs, None, None, pools=False)
        found[title] = [value for name, value in by_module.items() if "relu" in name]
    return found


def scales(palette: Palette) -> Figure:
    """One temperature for all gates wants gates of one scale."""
    figure = Figure(figsize=(5.6, 2.7), layout="constrained")
    axis = figure.subplots()
    colors = (palette.red, palette.blue)
    for (title, values), color in zip(spreads().items(), colors, strict=True):
        axis.plot(range(1, len(values) + 1), values, "o-", ms=4, color=color, label=title)
    axis.set_ylim(bottom=0)
    axis.set(xlabel="module with a ReLU, in the order of running", ylabel="spread of z")
    plain(axis, palette)
    legend(axis, palette)
    return figure


def main(folder: Path, theme: str) -> None:
    """Draws all of them for one theme."""
    for draw in (gates, paths, limits, pooling, scales):
        save(draw(PALETTES[theme]), folder, draw.__name__, theme)
