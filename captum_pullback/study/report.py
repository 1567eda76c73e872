"""The results of a run: a figure, a table and arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from captum_pullback.figures.comparison import plot_comparison
from captum_pullback.figures.panels import Method as DrawingMethod
from captum_pullback.study.loading import Seen
from captum_pullback.study.methods import Settings, title
from captum_pullback.study.scores import BUDGET, SCORES, Scored
from captum_pullback.study.softness import described, rules_text, temperature_text
from captum_pullback.study.text import duration, percent
from captum_pullback.zoo.networks import Network

__all__ = [
    "Explanation", "arrays", "caption", "class_name", "duration", "figure", "percent", "table",
]  # fmt: skip


@dataclass(frozen=True)
class Explanation:
    """One photograph and one target.

    Attributes:
        seen: The photograph, as the network sees it.
        target: The class that is explained.
        maps: For each method's name, its attribution and scores.
        cut: A description of the samples that the scores lack to save time.
    """

    seen: Seen
    target: int
    maps: dict[str, Scored] = field(default_factory=dict)
    cut: str = ""


def methods_of(explanations: Sequence[Explanation]) -> list[str]:
    """Return the methods that explained at least one photograph."""
    return list(dict.fromkeys(method for e in explanations for method in e.maps))


def class_name(network: Network, index: int) -> str:
    """Return a class's name, or its number if the names are unknown."""
    return network.classes[index] if index < len(network.classes) else f"class {index}"


def figure(
    network: Network,
    explanations: Sequence[Explanation],
    settings: Settings,
    method: DrawingMethod = "heat_map",
) -> Figure:
    """Draw photographs and maps side by side, with predictions and scores below them."""
    columns = {
        title(method, settings): [e.maps.get(method) for e in explanations]
        for method in methods_of(explanations)
    }
    return plot_comparison(
        [e.seen.inputs for e in explanations],
        {
            name: [
                torch.zeros_like(e.seen.inputs) if scored is None else scored.attribution
                for e, scored in zip(explanations, column, strict=True)
            ]
            for name, column in columns.items()
        },
        mean=network.mean,
        std=network.std,
        labels=[
            "\n".join([e.seen.photo, *_predictions(network, e, mark="» ")]) for e in explanations
        ],
        captions={
            name: ["failed" if scored is None else caption(scored) for scored in column]
            for name, column in columns.items()
        },
        method=method,
    )


def table(network: Network, explanations: Sequence[Explanation], settings: Settings) -> str:
    """Return a table of predictions and, unless there are none, scores."""
    titles = {method: title(method, settings) for e in explanations for method in e.maps}
    width = max(32, *map(len, titles.values()))
    scored_too = settings.scores != "none"

    def row(name: str, infidelity: str, sensitivity: str, time: str) -> str:
        scores = f" {infidelity:>10} {sensitivity:>16}" if scored_too else ""
        return f"  {name:<{width}}{scores} {time:>9}"

    lines = []
    for e in explanations:
        lines.append(f"{e.seen.photo}: {', '.join(_predictions(network, e))}")
        lines.append(row(f"for {class_name(network, e.target)}", *_HEADER))
        for method, scored in e.maps.items():
            infidelity, sensitivity = (
                f"{v:.3g}" if math.isfinite(v) else "-"
                for v in (scored.infidelity, scored.sensitivity)
            )
            lines.append(row(titles[method], infidelity, sensitivity, duration(scored.seconds)))
        if e.cut:
            lines.append(f"  within {BUDGET:g} s: {e.cut}; --scores full: all")
        lines.append("")
    softly = described(settings) if any("pullback" in method for method in titles) else None
    last = [line for line in (softly, SCORES if scored_too else None) if line]
    return "\n".join([*lines, *last] if last else lines[:-1])


def arrays(explanations: Sequence[Explanation], settings: Settings) -> dict[str, npt.NDArray[Any]]:
    """Return all results as arrays, one example for each photograph and target.

    ``photographs`` (N,), ``inputs`` (N, C, H, W) as the network saw them, ``targets`` (N,),
    ``scores`` (N, K) as the network gave them, ``probabilities`` (N, K), which are NaN for a single
    output, and under each method's name its attributions (N, C, H, W), NaN where it failed.
    ``temperature``, ``pool_temperature`` and ``rules`` are those of the pullbacks, spelled as on
    the command line.
    """
    pools = settings.pool_temperature
    temperature = temperature_text(settings.temperature)
    result: dict[str, npt.NDArray[Any]] = {
        "temperature": np.array(temperature),
        "pool_temperature": np.array(temperature if pools is None else temperature_text(pools)),
        "rules": np.array(rules_text(settings.rules)),
        "photographs": np.array([e.seen.photo for e in explanations]),
        "inputs": torch.stack([e.seen.inputs for e in explanations]).numpy(),
        "targets": np.array([e.target for e in explanations]),
        "scores": torch.stack([e.seen.prediction.scores for e in explanations]).numpy(),
        "probabilities": torch.stack(
            [e.seen.prediction.probabilities for e in explanations]
        ).numpy(),
    }
    for method in methods_of(explanations):
        maps = [
            e.maps[method].attribution
            if method in e.maps
            else torch.full_like(e.seen.inputs, torch.nan)
            for e in explanations
        ]
        result[method] = torch.stack(maps).numpy()
    return result


_HEADER = ("infidelity", "max-sensitivity", "time")


def _predictions(
    network: Network, explanation: Explanation, count: int = 3, mark: str = ""
) -> list[str]:
    """Return the most probable classes and the target, which is marked."""
    prediction = explanation.seen.prediction
    shown = prediction.top(count)
    if explanation.target not in shown:
        shown = [*shown[:-1], explanation.target]
    return [
        f"{mark if i == explanation.target else ''}{class_name(network, i)} {prediction.text(i)}"
        for i in shown
    ]


def caption(scored: Scored) -> str:
    """Return the scores of an attribution, as lines."""
    scores = {"infidelity": scored.infidelity, "max-sensitivity": scored.sensitivity}
    lines = [f"{name} {value:.3g}" for name, value in scores.items() if not math.isnan(value)]
    return "\n".join([*lines, duration(scored.seconds)])
