"""The app's computations, each on a private copy of the network."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from captum_pullback.app.hidden import Unit, layer_attribution, selector
from captum_pullback.app.jobs import Job, Watch, random_numbers
from captum_pullback.app.question import Loaded, Photo, Question, Selector
from captum_pullback.engine.models import on_copies
from captum_pullback.engine.spread import Spread
from captum_pullback.fit import TemperatureFit, fit_temperature
from captum_pullback.study import loading
from captum_pullback.study.errors import UsageError
from captum_pullback.study.methods import (
    INTEGRATION_STEPS,
    METHODS,
    NOISE_SAMPLES,
    Settings,
    at_once,
    coverage,
)
from captum_pullback.study.metrics.disturbances import noise_squares_of
from captum_pullback.study.predictions import Prediction
from captum_pullback.study.scores import (
    INFIDELITY_SAMPLES,
    SENSITIVITY_SAMPLES,
    Scored,
    quietly,
    rate,
)
from captum_pullback.zoo.networks import Network

__all__ = [
    "Explanation",
    "Seen",
    "explain",
    "fit",
    "look",
    "private_copy",
    "rated",
]

#: How many gradients, or forward passes, a method takes for one map.
COSTS = {"pullback": 1, "saliency": 1, "ig": INTEGRATION_STEPS, "smoothpullback": NOISE_SAMPLES}
_FIT_TRIES = 16


@dataclass(frozen=True)
class Seen:
    """A photograph as a network sees it.

    Inputs are (1, C, H, W), on the network's device; logits and probabilities (K,), on the CPU.
    ``logits`` are the network's outputs, whatever their kind; ``prediction`` says which kind.
    """

    network: str
    photo: Photo
    inputs: Tensor
    logits: Tensor
    probabilities: Tensor
    prediction: Prediction


@dataclass(frozen=True)
class Explanation:
    """An answer.

    Attributes:
        question: The question.
        seen: The photograph.
        maps: The attribution for each target; a neuron has one map, of target 0.
        unit: The neuron that is explained.
        activation: The neuron's activation; NaN for a class.
        record: What was softened, held and left hard, as a table to read.
        counts: How many calls were softened, held and left hard.
    """

    question: Question
    seen: Seen
    maps: tuple[Scored, ...]
    unit: Selector = ()
    activation: float = math.nan
    record: str = ""
    counts: tuple[int, int, int] = (0, 0, 0)

    @property
    def rated(self) -> bool:
        """Whether it has all the scores that it can have."""
        unknown = any(math.isnan(scored.infidelity) for scored in self.maps)
        return self.question.what == "layer" or not unknown


def private_copy(network: Network) -> Network:
    """Copy a network, apart from its weights, which are shared.

    Captum and `soften` put hooks on modules for a while. Two threads that work on one network would
    see each other's hooks.
    """
    tensors = (*network.model.parameters(), *network.model.buffers())
    shared = {id(tensor): tensor for tensor in tensors}
    return replace(network, model=copy.deepcopy(network.model, shared))


def look(loaded: Loaded, photo: Photo) -> Seen:
    """Run the network on a photograph.

    Raises:
        PhotoError: It cannot be read.
        UsageError: The network cannot be used.
    """
    inputs, seen = loading.look(
        private_copy(loaded.network), photo.load(), loaded.device, loaded.name, photo.name
    )
    return Seen(loaded.name, photo, inputs, seen.scores, seen.probabilities, seen)


def explain(loaded: Loaded, seen: Seen, question: Question, job: Job[Any]) -> Explanation:
    """Compute the maps that are asked for, without scores.

    Raises:
        UsageError: It cannot be done.
        Cancelled: The job was stopped.
        SofteningError: Nothing was softened.
    """
    network, targets, unit = subject(loaded, seen, question)
    job.begin(METHODS[question.method].title, len(targets) * COSTS[question.method])
    maps = []
    with Watch(network.model, job):
        for target in targets:
            start = time.perf_counter()
            attribution = _attributed(loaded, network, seen.inputs, target, question, job)
            _synchronize(attribution)
            seconds = time.perf_counter() - start
            _require_finite(attribution)
            shown = attribution.detach()[0].float().cpu()
            maps.append(Scored(shown, math.nan, math.nan, seconds))
        active = math.nan
        if unit:
            with torch.no_grad():
                active = float(on_copies(network.model, seen.inputs))
    record, counts = _coverage(loaded, seen.inputs, question)
    return Explanation(question, seen, tuple(maps), unit, active, record, counts)


def rated(loaded: Loaded, answer: Explanation, job: Job[Any]) -> Explanation:
    """Add infidelity and max-sensitivity to an answer; a layer's map has neither.

    Raises:
        Cancelled: The job was stopped.
    """
    question, inputs = answer.question, answer.seen.inputs
    if question.what == "layer":
        return answer
    network, targets, _ = subject(loaded, answer.seen, question)
    each = SENSITIVITY_SAMPLES * COSTS[question.method]
    job.begin("Infidelity and max-sensitivity", 1 + INFIDELITY_SAMPLES + len(targets) * each)
    explained = [
        (target, {question.method: scored})
        for target, scored in zip(targets, answer.maps, strict=True)
    ]
    with Watch(network.model, job), random_numbers(job):
        result = rate(network, inputs, explained, _settings(question))
    return replace(answer, maps=tuple(maps[question.method] for maps in result.maps))


def fit(loaded: Loaded, seen: Seen, question: Question, job: Job[Any]) -> TemperatureFit:
    """Fit the temperature over all targets, as `fit_temperature` does.

    Raises:
        UsageError: It cannot be done.
        Cancelled: The job was stopped.
    """
    if question.what == "layer":
        question = replace(question, what="class")
    network, targets, _ = subject(loaded, seen, question)
    samples = INFIDELITY_SAMPLES * len(targets)
    job.begin("Fitting the temperature", samples + 4 * _FIT_TRIES * len(targets))
    try:
        with Watch(network.model, job), random_numbers(job):
            return fit_temperature(
                network.model,
                seen.inputs.repeat(len(targets), 1, 1, 1),
                target=torch.tensor(targets, device=seen.inputs.device),
                pool_temperature=question.pool_temperature,
                rules=question.softness.rules,
                units=(
                    question.temperature.unit
                    if isinstance(question.temperature, Spread)
                    else "input"
                ),
                perturb_func=noise_squares_of(network),
                n_perturb_samples=INFIDELITY_SAMPLES,
                max_examples_per_batch=min(at_once(network), samples),
                show_progress=False,
            )
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"no temperature can be fitted: {error}") from error


def subject(
    loaded: Loaded, seen: Seen, question: Question
) -> tuple[Network, tuple[int, ...], Selector]:
    """Return a private copy of the network that is explained, its targets, and the unit.

    Raises:
        UsageError: There is no such layer or unit, or no class was chosen.
    """
    network = private_copy(loaded.network)
    if question.what != "class" and question.layer not in loaded.layers:
        raise UsageError("choose a layer first")
    if question.what == "neuron":
        unit = selector(network, seen.inputs, question)
        return replace(network, model=Unit(network.model, question.layer, unit)), (0,), unit
    if not question.targets:
        raise UsageError("choose a class to explain first")
    return network, question.targets, ()


def _settings(question: Question) -> Settings:
    softness = question.softness
    return Settings(softness.temperature, softness.pool_temperature, softness.rules)


def _attributed(
    loaded: Loaded,
    network: Network,
    inputs: Tensor,
    target: int,
    question: Question,
    job: Job[Any],
) -> Tensor:
    if question.what == "layer":
        shape = loaded.layers[question.layer]
        return layer_attribution(network, inputs, target, question, shape)
    attribute = METHODS[question.method].make(network, _settings(question))
    # Detach and clone: Captum warns about inputs that do not require gradients yet.
    leaf = inputs.detach().clone().requires_grad_()
    run: Callable[[], Tensor] = lambda: attribute(leaf, target=target)  # noqa: E731
    if question.method != "smoothpullback":
        return run()
    with random_numbers(job), quietly():
        torch.manual_seed(_settings(question).seed)
        return run()


def _coverage(
    loaded: Loaded, inputs: Tensor, question: Question
) -> tuple[str, tuple[int, int, int]]:
    """Return the record and its totals; empty for methods that are not pullbacks."""
    if "pullback" not in question.method:
        return "", (0, 0, 0)
    record = coverage(private_copy(loaded.network), inputs, _settings(question))
    soft, held, hard = (
        sum(met.calls for met in part) for part in (record.softened, record.held, record.left_hard)
    )
    return str(record), (soft, held, hard)


def _require_finite(attribution: Tensor) -> None:
    if not bool(attribution.isfinite().all()):
        raise UsageError("the attribution is NaN or infinite in places")


def _synchronize(values: Tensor) -> None:
    if values.is_cuda:
        torch.cuda.synchronize(values.device)
