"""The files that the app offers for download: arrays and figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from captum_pullback.app.climbing import Ascended, heat
from captum_pullback.app.question import Loaded, Question
from captum_pullback.app.work import Explanation
from captum_pullback.figures.ascents import plot_ascent, score_change
from captum_pullback.figures.comparison import plot_comparison, save_figure
from captum_pullback.figures.panels import Method as DrawingMethod
from captum_pullback.study.methods import METHODS
from captum_pullback.study.report import caption, class_name
from captum_pullback.study.softness import temperature_text

__all__ = [
    "arrays_of",
    "arrays_of_ascent",
    "explained",
    "figure_of",
    "figure_of_ascent",
    "method_title",
]


def method_title(answer: Explanation) -> str:
    """Return the name of the method; for a pullback with its temperatures and rules."""
    question = answer.question
    name = METHODS[question.method].title
    return f"{name}, {heat(question)}" if "pullback" in question.method else name


def explained(loaded: Loaded, answer: Explanation | Ascended) -> list[str]:
    """Return what each map explains, in words."""
    question = answer.question
    if question.what == "neuron":
        where = ", ".join("all" if isinstance(p, slice) else str(p) for p in answer.unit)
        return [f"{question.layer} [{where}]"]
    names = [class_name(loaded.network, target) for target in question.targets]
    if question.what == "layer" and isinstance(answer, Explanation):
        return [f"{name}, at {question.layer}" for name in names]
    return names


def arrays_of(answer: Explanation, path: Path) -> None:
    """Write an explanation as ``.npz``.

    ``attributions`` has a row for each target, in the shape of the input, or of the layer;
    ``inputs`` (C, H, W) is the network's input; the rest are the settings, spelled as on the
    command line, and the figures on the page.
    """
    question = answer.question
    _save(
        path,
        attributions=torch.stack([scored.attribution for scored in answer.maps]).numpy(),
        inputs=answer.seen.inputs[0].cpu().numpy(),
        targets=np.array(question.targets, dtype=np.int64),
        probabilities=answer.seen.probabilities.numpy(),
        logits=answer.seen.logits.numpy(),
        infidelity=np.array([scored.infidelity for scored in answer.maps]),
        sensitivity=np.array([scored.sensitivity for scored in answer.maps]),
        seconds=np.array([scored.seconds for scored in answer.maps]),
        photograph=np.array(answer.seen.photo.name),
        method=np.array(METHODS[question.method].title),
        **_softness(question),
    )


def arrays_of_ascent(result: Ascended, path: Path) -> None:
    """Write an ascent as ``.npz``.

    ``perturbed`` (targets, C, H, W) and ``scores`` (targets, steps + 1); both again with the suffix
    ``_plainly`` if the plain gradient is compared; ``inputs`` (C, H, W); and the settings.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    for ending, ends, scores in zip(
        ("", "_plainly"), result.ends.values(), result.scores.values(), strict=False
    ):
        arrays[f"perturbed{ending}"] = torch.stack(ends).numpy()
        arrays[f"scores{ending}"] = torch.stack(scores).numpy()
    _save(
        path,
        inputs=result.seen.inputs[0].cpu().numpy(),
        targets=np.array(result.question.targets, dtype=np.int64),
        photograph=np.array(result.seen.photo.name),
        **_softness(result.question),
        **arrays,
    )


def figure_of(
    answers: Sequence[tuple[Loaded, Explanation]], method: DrawingMethod, path: Path
) -> None:
    """Write a figure of explanations, a row for each map."""
    rows = [
        (loaded, answer, name, scored)
        for loaded, answer in answers
        for name, scored in zip(explained(loaded, answer), answer.maps, strict=True)
    ]
    hidden = any(answer.question.what == "layer" for _, answer in answers)
    figure = plot_comparison(
        [loaded.network.pixels(answer.seen.inputs[0].cpu()) for loaded, answer, *_ in rows],
        {"Attribution": [scored.attribution for *_, scored in rows]},
        labels=[f"{answer.seen.photo.name}\n{loaded.name}" for loaded, answer, *_ in rows],
        captions={
            "Attribution": [
                "\n".join([name, method_title(answer), caption(scored)])
                for _, answer, name, scored in rows
            ]
        },
        method="heat_map" if hidden else method,  # a layer has no colors, and a size of its own
    )
    with path.open("wb") as file:
        save_figure(figure, file, "png")


def figure_of_ascent(loaded: Loaded, result: Ascended, path: Path) -> None:
    """Write a figure of an ascent."""
    network, seen = loaded.network, result.seen
    image = seen.inputs[0].cpu()
    figure = plot_ascent(
        [image],
        {title: [[end - image for end in ends]] for title, ends in result.ends.items()},
        mean=network.mean,
        std=network.std,
        titles=explained(loaded, result),
        labels=[seen.photo.name],
        captions={
            title: [[score_change(score[0], score[-1]) for score in scores]]
            for title, scores in result.scores.items()
        },
    )
    with path.open("wb") as file:
        save_figure(figure, file, "png")


def _softness(question: Question) -> dict[str, npt.NDArray[Any]]:
    """Return temperatures and rules as the command line spells them."""
    pool = question.pool_temperature
    return {
        "temperature": np.array(temperature_text(question.temperature)),
        "pool_temperature": np.array(
            temperature_text(question.temperature if pool is None else pool)
        ),
        "rules": np.array(question.rules),
    }


def _save(path: Path, **arrays: npt.NDArray[Any]) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
