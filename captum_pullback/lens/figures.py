"""Figures of a `TrainingLens`'s measures. None of them changes pyplot's global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_pullback.lens.arrays import Floats
from captum_pullback.lens.similarity import Similarity, Subclasses
from captum_pullback.lens.stability import Settledness
from captum_pullback.lens.style import (
    BETWEEN,
    GRAY,
    WITHIN,
    class_color,
    depth_color,
    over_training,
    plain,
    spread,
)
from captum_pullback.lens.trajectory_figures import animate, trajectory_figure

__all__ = [
    "alignment_figure",
    "animate",
    "gates_figure",
    "open_figure",
    "roc_figure",
    "similarity_figure",
    "spread",
    "subclass_figure",
    "trajectory_figure",
]


def similarity_figure(
    similarity: Similarity,
    classes: Sequence[str],
    accuracy: Floats | None = None,
    title: str | None = None,
) -> Figure:
    """Draw the mean cosine within and between classes over training, and beside it each class.

    Args:
        similarity: What `TrainingLens.similarity` gives.
        classes: The classes' names, in the order of their numbers.
        accuracy: At each step, (S,), drawn above.
        title: The figure's title; None for a description of the curves.
    """
    figure = Figure(figsize=(9.2, 4.2), layout="constrained")
    if title is None:
        come = bool(similarity.within[-1] > similarity.within[0])
        part = bool(similarity.between[-1] < similarity.between[0])
        ways = ("apart", "together")
        joined = "and" if come == part else "and also"
        title = (
            f"Effective weights come {ways[come]} within a class, "
            f"{joined} {ways[not part]} between classes"
        )
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", weight="bold")
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    steps = similarity.steps
    left.fill_between(steps, similarity.between, similarity.within, color="0.93", lw=0)
    curves = [
        (similarity.within, "within a class", {"color": WITHIN, "lw": 2.4}),
        (similarity.between, "between classes", {"color": BETWEEN, "lw": 2.4}),
    ]
    if accuracy is not None:
        style = {"color": GRAY, "lw": 1.1, "ls": (0, (4, 2))}
        curves.append((accuracy, "accuracy on these examples", style))
    for curve, name, style in curves:
        left.plot(
            steps, curve, **style, label=f"{name}: {_number(curve[0])} → {_number(curve[-1])}"
        )
    over_training(left, steps)
    # Below the axes, since the curves may be anywhere.
    left.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    left.set_ylabel("mean cosine similarity of effective weights")
    for k, curve in enumerate(similarity.per_class.T):
        right.plot(steps, curve, lw=1.3, color=class_color(k, len(classes)), label=classes[k])
    right.set_title("within each class", fontsize=9)
    over_training(right, steps)
    _legend(right, len(classes))
    return figure


def subclass_figure(
    found: Subclasses, steps: Sequence[int], classes: Sequence[str], most: int = 3
) -> Figure:
    """Draw the classes that split most: similarity within and between their two groups.

    Args:
        found: What `TrainingLens.subclasses` gives.
        steps: The steps, (S,).
        classes: The classes' names.
        most: How many classes to show.
    """
    gap = found.within[-1] - found.between[-1]
    order = [int(k) for k in np.argsort(-np.nan_to_num(gap, nan=-1))[:most]]
    figure = Figure(figsize=(3.1 * len(order), 2.9), layout="constrained")
    axes = figure.subplots(1, len(order), squeeze=False, sharey=True)[0]
    for axis, k in zip(axes, order, strict=True):
        axis.plot(steps, found.within[:, k], color=WITHIN, lw=1.8, label="within the groups")
        axis.plot(steps, found.between[:, k], color=BETWEEN, lw=1.8, label="between the two")
        share = 100 * found.share[-1, k]
        axis.set_title(f"{classes[k]}: {share:.0f} % of variance on one axis", fontsize=9)
        over_training(axis, np.asarray(steps))
    axes[0].set_ylabel("mean cosine similarity")
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def gates_figure(
    steps: Sequence[int], agreement: Mapping[str, Floats], settled: Mapping[str, Floats]
) -> Figure:
    """Draw the share of gates that agree with the end, and that never flip again, by layer.

    Args:
        steps: The steps, (S,).
        agreement: What `TrainingLens.agreement` gives.
        settled: What `TrainingLens.settled_share` gives.
    """
    figure = Figure(figsize=(9.2, 3.8), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    titles = ("gates that are as they are at the end", "gates that never flip again")
    for axis, curves, title in zip(axes, (agreement, settled), titles, strict=True):
        for number, (name, curve) in enumerate(curves.items()):
            axis.plot(steps, curve, lw=1.1, color=depth_color(number, len(curves)), label=name)
        mean = np.mean(list(curves.values()), axis=0)
        axis.plot(steps, mean, color="black", lw=2.2, label="mean of the layers")
        axis.set_title(title, fontsize=10)
        over_training(axis, np.asarray(steps))
        axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes[0].set_ylim(min(axes[0].get_ylim()[0], axes[1].get_ylim()[0]), 1.01)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False, fontsize=7)
    return figure


def roc_figure(measured: Mapping[str, Settledness]) -> Figure:
    """Draw ROC curves, by layer: does the final :math:`|z|` predict which gates are settled?

    Args:
        measured: What `TrainingLens.settledness` gives.
    """
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="0.7", lw=1, ls=(0, (4, 2)))
    for number, (name, layer) in enumerate(measured.items()):
        axis.plot(
            layer.false_positives, layer.true_positives, lw=1.3,
            color=depth_color(number, len(measured)), label=f"{name}: {layer.auc:.2f}",
        )  # fmt: skip
    axis.set(box_aspect=1, xlim=(0, 1), ylim=(0, 1.003))
    axis.set_xlabel("of the gates that still flip, share with |z| above a threshold")
    axis.set_ylabel("of the settled ones, share above it")
    plain(axis)
    axis.legend(
        loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=7,
        title="layer: AUC", title_fontsize=8,
    )  # fmt: skip
    return figure


def open_figure(
    shares: Mapping[str, tuple[Floats, Floats]], temperatures: Mapping[str, float], most: int = 6
) -> Figure:
    """Draw how often a gate was open, by its final z, with the fitted sigmoid.

    Args:
        shares: What `TrainingLens.open_share` gives.
        temperatures: The fitted temperature for each of these layers.
        most: How many layers to show.
    """
    names = [list(shares)[i] for i in spread(len(shares), most)]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.4 * rows + 0.2), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, names, strict=False):
        z, opened = shares[name]
        temperature = temperatures[name]
        widest = float(np.quantile(np.abs(z), 0.99)) or 1.0
        edge = min(widest, 8 * temperature) if temperature > 0 else widest
        edges = np.linspace(-edge, edge, 26)
        place = np.digitize(z, edges) - 1
        inside = (place >= 0) & (place < 25)
        count = np.bincount(place[inside], minlength=25)
        total = np.bincount(place[inside], opened[inside], minlength=25)
        enough = count > 20
        middle = ((edges[1:] + edges[:-1]) / 2)[enough]
        axis.plot(middle, total[enough] / count[enough], "o", ms=3.5, color=BETWEEN)
        line = np.linspace(-edge, edge, 200)
        axis.plot(line, 0.5 * (1 + np.tanh(line / (2 * temperature))), color=WITHIN, lw=1.4)
        axis.set_title(f"{name}: T = {temperature:.2g}", fontsize=9)
        axis.set_ylim(-0.03, 1.03)
        plain(axis)
    figure.supxlabel("final pre-activation z", fontsize=9)
    figure.supylabel("share of the later half open", fontsize=9)
    return figure


def alignment_figure(
    gradient: Floats, pullback: Mapping[float, Floats], fitted: Sequence[float] = ()
) -> Figure:
    """Draw the cosine with the averaged-gate machine for each temperature and the gradient.

    Args:
        gradient: For each example, or for each seed, (N,).
        pullback: The same for each temperature.
        fitted: Temperatures that were fitted to the gates, drawn as ticks below.
    """
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axis = figure.subplots()
    finite = [t for t in pullback if np.isfinite(t)]
    last = max(finite) * 2.2
    places = [t if np.isfinite(t) else last for t in pullback]
    middle = np.array([pullback[t].mean() for t in pullback])
    axis.plot(places, middle, "o-", color=WITHIN, lw=1.8, ms=4, label="excitation pullback")
    axis.axhline(gradient.mean(), color=BETWEEN, lw=1.8, label="plain gradient")
    for values, color, at in (
        (list(pullback.values()), WITHIN, places),
        ([gradient] * 2, BETWEEN, [min(finite) * 0.8, last * 1.25]),
    ):
        margin = [1.96 * v.std(ddof=1) / np.sqrt(len(v)) if len(v) > 1 else 0 for v in values]
        means = np.array([v.mean() for v in values])
        axis.fill_between(at, means - margin, means + margin, color=color, alpha=0.15, lw=0)
    best = int(np.argmax(middle))
    axis.annotate(
        f"{middle[best]:.3f}", (places[best], middle[best]), xytext=(0, 7),
        textcoords="offset points", ha="center", fontsize=8, color=WITHIN,
    )  # fmt: skip
    axis.annotate(
        f"{gradient.mean():.3f}", (min(finite) * 0.85, gradient.mean()), xytext=(0, 4),
        textcoords="offset points", fontsize=8, color=BETWEEN,
    )  # fmt: skip
    axis.set_xscale("log")
    axis.set_xticks(places, [f"{t:g}" if np.isfinite(t) else "∞" for t in pullback])
    axis.set_xticks([], minor=True)
    axis.set_xlim(min(finite) * 0.8, last * 1.25)
    if len(fitted):
        axis.plot(
            fitted, np.full(len(fitted), 0.02), "|", ms=10, color="black",
            transform=axis.get_xaxis_transform(), label="fitted to the gates, by layer",
        )  # fmt: skip
    axis.set_xlabel("temperature T")
    axis.set_ylabel("cosine with the averaged-gate machine")
    axis.legend(frameon=False, fontsize=8, loc="lower center")
    plain(axis)
    return figure


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _legend(axis: Axes, classes: int) -> None:
    if classes <= 24:
        axis.legend(
            frameon=False, fontsize=7, ncols=1 + (classes > 12), loc="center left",
            bbox_to_anchor=(1.0, 0.5), handlelength=1.2,
        )  # fmt: skip
