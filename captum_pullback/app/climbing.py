"""Ascents for the app: toward classes, or toward a hidden unit's activation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from captum_pullback.app.jobs import Job, Watch
from captum_pullback.app.question import RULES, Loaded, Question, Selector
from captum_pullback.app.work import Seen, private_copy, subject
from captum_pullback.engine.models import on_copies
from captum_pullback.engine.softness import Softness
from captum_pullback.study.ascents import PLAIN, Climb
from captum_pullback.study.softness import temperature_words

__all__ = ["Ascended", "ascend", "climb_ways", "essential", "heat"]


@dataclass(frozen=True)
class Ascended:
    """The results of ascents, by method and target.

    Attributes:
        question: The question.
        climb: The settings of the ascent.
        seen: The photograph.
        ends: For each method's title, the last point (C, H, W) for each target.
        scores: For each method's title, the target's score at the start and after each step,
            (steps + 1,).
        probabilities: For each method's title, those of all classes at the end, (K,).
        unit: See `Explanation`.
    """

    question: Question
    climb: Climb
    seen: Seen
    ends: dict[str, list[Tensor]]
    scores: dict[str, list[Tensor]]
    probabilities: dict[str, list[Tensor]]
    unit: Selector = ()


def ascend(loaded: Loaded, seen: Seen, question: Question, climb: Climb, job: Job[Any]) -> Ascended:
    """Run an ascent from the photograph toward each target.

    Raises:
        UsageError: The ascent cannot be done.
        Cancelled: The job was stopped.
    """
    question = essential(question)
    network, targets, unit = subject(loaded, seen, question)
    classifier = private_copy(loaded.network).model
    ways = climb_ways(question, climb)
    job.begin("Ascent", len(ways) * len(targets) * (climb.steps + 1))
    result = Ascended(question, climb, seen, {}, {}, {}, unit)
    with Watch(network.model, job):
        for title, way in ways.items():
            ascent = climb.ascent(network, way)
            for target in targets:
                steps = ascent.trace(seen.inputs, target)
                end = steps[-1].inputs
                with torch.no_grad():
                    last = replace(
                        seen.prediction, scores=on_copies(classifier, end)[0].float().cpu()
                    )
                scores = torch.cat([step.score.float().cpu() for step in steps])
                result.ends.setdefault(title, []).append(end[0].cpu())
                result.scores.setdefault(title, []).append(scores)
                result.probabilities.setdefault(title, []).append(last.probabilities)
    return result


def essential(question: Question) -> Question:
    """Return the question without the settings that do not affect an ascent."""
    question = replace(question, method="pullback")
    if question.what == "neuron":
        return replace(question, targets=())
    return replace(question, what="class", layer="", channel=0, everywhere=False)


def climb_ways(question: Question, climb: Climb) -> dict[str, Softness]:
    """Return how soft the gates are, by the title of the ascent."""
    softness = question.softness
    ways = {f"Along the excitation pullback, {heat(question)}": softness}
    return ways | ({"Along the plain gradient": PLAIN} if climb.compare else {})


def heat(question: Question) -> str:
    """Return temperatures and rules for a title, as far as they are not the default."""
    parts = [f"T = {temperature_words(question.temperature)}"]
    if question.pool_temperature is not None:
        parts.append(f"pooling {temperature_words(question.pool_temperature)}")
    if question.rules != RULES[0]:
        parts.append(f"rules {question.rules}")
    return ", ".join(parts)
