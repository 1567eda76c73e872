"""The page of the command ``lens``: from the record of a training run to figures and text."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from tqdm import tqdm

from captum_pullback.commands.checkpoints import Examples
from captum_pullback.engine.temperature import module_entry
from captum_pullback.lens import figures
from captum_pullback.lens.dynamics import Alignment, TrainingLens
from captum_pullback.outputs import replacing

__all__ = ["report"]

TEMPERATURES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, math.inf)
_MOST_POINTS = 4000  # of a t-SNE, which takes some seconds for that many


def report(
    lens: TrainingLens, model: nn.Module, watched: Examples, out: Path, what: str
) -> dict[str, Any]:
    """Write ``lens.md`` and its figures.

    Args:
        lens: The lens, with two or more steps recorded.
        model: The model of the last of them.
        watched: The lens's examples.
        out: The folder.
        what: A description of the run in a few words.

    Returns:
        The numbers of the page.
    """
    stages = 4 + 2 * (lens.weights is not None)
    with tqdm(total=stages, desc="measure", unit="figure", disable=None, leave=False) as bar:
        lines = [f"# The linear lens: {what}", "", _about(lens, watched), ""]
        numbers: dict[str, Any] = {"steps": lens.steps}
        if lens.weights is not None:
            lines += _weights(lens, watched, out, numbers)
            bar.update()
            lines += _trajectories(lens, watched, out)
            bar.update()
        lines += _gates(lens, out, numbers)
        bar.update()
        lines += _settled(lens, model, out, numbers)
        bar.update()
        fitted, part = _temperatures(lens, model, out, numbers)
        lines += part
        bar.update()
        lines += _machine(lens, model, out, fitted, numbers)
        bar.update()
    with replacing(out / "lens.md") as file:
        file.write("\n".join(lines).encode())
    return numbers


def _about(lens: TrainingLens, watched: Examples) -> str:
    return (
        f"{len(watched.labels)} examples of {len(watched.classes)} classes, watched at "
        f"{len(lens.steps)} steps from {lens.steps[0]:,} to {lens.steps[-1]:,}."
    )


def _weights(
    lens: TrainingLens, watched: Examples, out: Path, numbers: dict[str, Any]
) -> list[str]:
    similarity = lens.similarity()
    figure = figures.similarity_figure(similarity, watched.classes, lens.accuracy())
    figure.savefig(out / "similarity.png", dpi=160)
    found = lens.subclasses()
    figures.subclass_figure(found, lens.steps, watched.classes).savefig(
        out / "subclasses.png", dpi=160
    )
    numbers["within"], numbers["between"] = similarity.within, similarity.between
    lines = [
        "## Effective weights",
        "",
        "At each example the network is an affine map, `f(x) = W(x) x + b(x)`. The table compares "
        "the weights of each example's own class (arXiv 2511.05628).",
        "",
        "![similarity](similarity.png)",
        "",
        "| mean cosine | first step | last step |",
        "|---|---|---|",
        f"| own class's weights, within a class | {_ends(similarity.within)} |",
        f"| own class's weights, between classes | {_ends(similarity.between)} |",
        f"| margin | {_ends(similarity.margin)} |",
    ]
    if lens.weights == "all":
        whole = lens.similarity("all")
        lines += [
            f"| all classes' weights, within a class | {_ends(whole.within)} |",
            f"| all classes' weights, between classes | {_ends(whole.between)} |",
            f"| margin | {_ends(whole.margin)} |",
        ]
        numbers["within_all"], numbers["between_all"] = whole.within, whole.between
    return [
        *lines,
        "",
        "Weights of two different classes are rows of two different logits, and nearly "
        "orthogonal from the start; all classes' weights together compare like with like.",
        "",
        "Two groups in each class, split along the class's leading direction at the last step; "
        "the classes that split most:",
        "",
        "![subclasses](subclasses.png)",
        "",
    ]


def _trajectories(lens: TrainingLens, watched: Examples, out: Path) -> list[str]:
    labels = watched.labels.numpy()
    lines = ["Where the weights go; each dot is an example:", ""]
    for method, name in (("pca", "principal components"), ("tsne", "t-SNE")):
        steps = lens.steps
        if method == "tsne":
            most = max(2, _MOST_POINTS // len(labels))
            steps = [steps[i] for i in figures.spread(len(steps), most)]
        places = lens.projection(method, steps)  # type: ignore[arg-type]
        figure = figures.trajectory_figure(places, labels, steps, watched.classes, name)
        figure.savefig(out / f"{method}.png", dpi=160)
        lines += [f"![{name}]({method}.png)", ""]
        if method == "pca":
            figures.animate(out / "pca.gif", places, labels, steps, watched.classes)
            lines += ["[The same as an animation](pca.gif)", ""]
    return lines


def _gates(lens: TrainingLens, out: Path, numbers: dict[str, Any]) -> list[str]:
    agreement, settled = lens.agreement(), lens.settled_share()
    figures.gates_figure(lens.steps, agreement, settled).savefig(out / "gates.png", dpi=160)
    mean = np.mean(list(agreement.values()), axis=0)
    never = np.mean(list(settled.values()), axis=0)
    numbers["agreement"], numbers["settled"] = mean, never
    rows = []
    for share in (0, 0.25, 0.5, 0.8):
        first, last = lens.steps[0], lens.steps[-1]
        at = int(np.searchsorted(lens.steps, first + (last - first) * share))
        rows.append(
            f"| {100 * share:.0f} % (step {lens.steps[at]:,}) | {100 * mean[at]:.1f} % | "
            f"{100 * never[at]:.1f} % |"
        )
    return [
        "## Gates",
        "",
        "Do gates settle (the path stability hypothesis, arXiv 2507.22832)? Means over layers:",
        "",
        "| of training | same as at the end | never flip again |",
        "|---|---|---|",
        *rows,
        "",
        "![gates](gates.png)",
        "",
    ]


def _settled(lens: TrainingLens, model: nn.Module, out: Path, numbers: dict[str, Any]) -> list[str]:
    measured = lens.settledness(model)
    figures.roc_figure(measured).savefig(out / "roc.png", dpi=160)
    areas = [layer.auc for layer in measured.values()]
    numbers["auc"] = {name: layer.auc for name, layer in measured.items()}
    found = "in no layer did some gates flip and others not."
    if not np.isnan(areas).all():
        found = (
            f"AUC {np.nanmin(areas):.2f} to {np.nanmax(areas):.2f} by layer, mean "
            f"{np.nanmean(areas):.2f} (0.5 is chance)."
        )
    return [
        "How well the distance of the final pre-activation from 0 predicts which gates did not "
        f"flip over the later half: {found}",
        "",
        "![ROC curves](roc.png)",
        "",
    ]


def _temperatures(
    lens: TrainingLens, model: nn.Module, out: Path, numbers: dict[str, Any]
) -> tuple[list[float], list[str]]:
    fitted = lens.fit_temperatures(model)
    values = {name: float(value) for name, value in fitted.items()}
    shares = lens.open_share(model)
    layers = {
        name: values.get(
            "" if name.startswith("(") else module_entry(name.split(" (")[0]), values[""]
        )
        for name in shares
    }
    figures.open_figure(shares, layers).savefig(out / "temperatures.png", dpi=160)
    numbers["temperatures"] = values
    shown = "\n".join(f"    {name!r}: {value:.3g}," for name, value in values.items())
    return [value for name, value in values.items() if name], [
        "The temperatures for which `sigmoid(z / T)` of the final z best fits the share "
        "of the later half in which a gate was open:",
        "",
        "![share open by z](temperatures.png)",
        "",
        "```python",
        "pullback = ExcitationPullback(model, temperature={",
        shown,
        "})",
        "```",
        "",
    ]


def _machine(
    lens: TrainingLens, model: nn.Module, out: Path, fitted: list[float], numbers: dict[str, Any]
) -> list[str]:
    found: Alignment = lens.alignment(model, TEMPERATURES)
    figure = figures.alignment_figure(found.gradient, found.pullback, fitted)
    figure.savefig(out / "machine.png", dpi=160)
    best = found.best
    numbers["alignment"] = {
        "gradient": float(found.gradient.mean()),
        **{str(t): float(values.mean()) for t, values in found.pullback.items()},
    }
    return [
        "## The fixed-path machine",
        "",
        "The fixed-path machine's gradient goes through gates averaged over training. Mean "
        f"cosine similarity with it: {found.gradient.mean():.3f} of the plain gradient, "
        f"{found.pullback[best].mean():.3f} of the excitation pullback at its best, T = {best:g}.",
        "",
        "![alignment](machine.png)",
        "",
        "Shaded: 95 % interval of the mean over examples.",
        "",
    ]


def _ends(values: Any) -> str:
    return f"{values[0]:.3f} | {values[-1]:.3f}"
