"""What came out of a run of explanations, as a figure, as a table and as arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from captum_pullback.figures.comparison import plot_comparison
from captum_pullback.figures.panels import Method as DrawingMethod
from captum_pullback.study.methods import Settings, title
from captum_pullback.study.scores import SCORES, Scored
from captum_pullback.zoo.networks import Network


@dataclass(frozen=True)
class Explanation:
    """One photograph and one target.

    Attributes:
        photo: the photograph's name.
        inputs: what the network saw, (C, H, W), on the CPU.
        target: the class that is explained.
        probabilities: of all the classes, (K,).
        maps: for each method's name, its attribution and scores.
    """

    photo: str
    inputs: Tensor
    target: int
    probabilities: Tensor
    maps: dict[str, Scored] = field(default_factory=dict)


def class_name(network: Network, index: int) -> str:
    """A class's name, or its number where nobody knows the names."""
    return network.classes[index] if index < len(network.classes) else f"class {index}"


def figure(
    network: Network,
    explanations: Sequence[Explanation],
    settings: Settings,
    method: DrawingMethod = "heat_map",
) -> Figure:
    """Photographs and maps side by side, predictions and scores under them."""
    columns = {
        title(method, settings): [e.maps[method] for e in explanations]
        for method in explanations[0].maps
    }
    return plot_comparison(
        [e.inputs for e in explanations],
        {name: [scored.attribution for scored in column] for name, column in columns.items()},
        mean=network.mean,
        std=network.std,
        labels=["\n".join([e.photo, *_predictions(network, e, mark="» ")]) for e in explanations],
        captions={name: [caption(scored) for scored in column] for name, column in columns.items()},
        method=method,
    )


def table(network: Network, explanations: Sequence[Explanation], settings: Settings) -> str:
    """The same in words and numbers."""
    row = "  {:<32} {:>10} {:>16} {:>9}".format
    lines = []
    for e in explanations:
        lines.append(f"{e.photo}: {', '.join(_predictions(network, e))}")
        lines.append(row(f"for {class_name(network, e.target)}", *_HEADER))
        for method, scored in e.maps.items():
            values = [
                f"{v:.3g}" if math.isfinite(v) else "-"
                for v in (scored.infidelity, scored.sensitivity)
            ]
            lines.append(row(title(method, settings), *values, duration(scored.seconds)))
        lines.append("")
    return "\n".join([*lines, SCORES] if settings.scores else lines[:-1])


def arrays(explanations: Sequence[Explanation]) -> dict[str, npt.NDArray[Any]]:
    """Everything as arrays, an example per photograph and target.

    ``photographs`` (N,), ``inputs`` (N, C, H, W) as the network saw them, ``targets`` (N,),
    ``probabilities`` (N, K), and under each method's name its attributions (N, C, H, W).
    """
    result: dict[str, npt.NDArray[Any]] = {
        "photographs": np.array([e.photo for e in explanations]),
        "inputs": torch.stack([e.inputs for e in explanations]).numpy(),
        "targets": np.array([e.target for e in explanations]),
        "probabilities": torch.stack([e.probabilities for e in explanations]).numpy(),
    }
    for method in explanations[0].maps:
        maps = [e.maps[method].attribution for e in explanations]
        result[method] = torch.stack(maps).numpy()
    return result


_HEADER = ("infidelity", "max-sensitivity", "time")


def _predictions(
    network: Network, explanation: Explanation, count: int = 3, mark: str = ""
) -> list[str]:
    """The most probable classes, the target marked; and the target, if it is none of them."""
    values = explanation.probabilities
    shown = values.topk(min(count, len(values))).indices.tolist()
    if explanation.target not in shown:
        shown = [*shown[:-1], explanation.target]
    return [
        f"{mark if i == explanation.target else ''}{class_name(network, i)} {percent(values[i])}"
        for i in shown
    ]


def percent(probability: Tensor) -> str:
    """A probability for people."""
    return f"{probability:.1%}".replace("%", " %") if probability >= 0.001 else "< 0.1 %"


def caption(scored: Scored) -> str:
    """What an attribution was worth, in lines."""
    scores = {"infidelity": scored.infidelity, "max-sensitivity": scored.sensitivity}
    lines = [f"{name} {value:.3g}" for name, value in scores.items() if not math.isnan(value)]
    return "\n".join([*lines, duration(scored.seconds)])


def duration(seconds: float) -> str:
    """Seconds for people."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
