"""Scores of attributions: Captum's infidelity and max-sensitivity, and their time.

A photograph is perturbed once. The network's outputs serve all methods and targets, and all methods
are run on the same neighbors, as many of them as a time budget allows.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from captum_pullback.perturbations import forked_generators
from captum_pullback.study.methods import METHODS, Attribute, Settings, at_once
from captum_pullback.study.metrics.answers import Answers
from captum_pullback.study.metrics.disturbances import SENSITIVITY_RADIUS, nearby, squares
from captum_pullback.study.metrics.sensitivity import max_sensitivity
from captum_pullback.study.softness import UNUSED
from captum_pullback.zoo.networks import Network

__all__ = [
    "BUDGET", "INFIDELITY_SAMPLES", "SCORES", "SENSITIVITY_SAMPLES", "Rated", "Scored",
    "attributed", "quietly", "rate", "score",
]  # fmt: skip

INFIDELITY_SAMPLES = 32
SENSITIVITY_SAMPLES = 10

#: Seconds that a photograph's quick scores may take.
BUDGET = 20.0
_FEWEST_SQUARES = 8  # however long they take: fewer are meaningless

#: A description of the scores: the table's last line.
SCORES = (
    f"infidelity: {INFIDELITY_SAMPLES} squares of 1/2 and 1/4 of the side, replaced by noise; "
    f"max-sensitivity: {SENSITIVITY_SAMPLES} draws of noise within {SENSITIVITY_RADIUS:g} of the "
    "pixels' range; lower is better"
)


@dataclass(frozen=True)
class Scored:
    """An attribution (C, H, W) and its scores, which are NaN if there are none."""

    attribution: Tensor
    infidelity: float
    sensitivity: float
    seconds: float


@dataclass(frozen=True)
class Rated:
    """One photograph's attributions with their scores.

    Attributes:
        maps: For each target, in the order that was given, the methods' attributions.
        squares: Over how many squares infidelity is.
        draws: Over how many draws of noise max-sensitivity is, the same for all methods.
        without: Methods whose max-sensitivity the budget did not allow.
    """

    maps: tuple[dict[str, Scored], ...]
    squares: int
    draws: int
    without: tuple[str, ...] = ()

    @property
    def cut(self) -> str:
        """A description of what the budget left out; "" for nothing."""
        parts = []
        if self.squares < INFIDELITY_SAMPLES:
            parts.append(f"infidelity over {self.squares} of {INFIDELITY_SAMPLES} squares")
        if self.draws == 0:
            parts.append("no max-sensitivity")
        else:
            if self.draws < SENSITIVITY_SAMPLES:
                over = f"{self.draws} of {SENSITIVITY_SAMPLES} draws"
                parts.append(f"max-sensitivity over {over}")
            if self.without:
                names = " and ".join(METHODS[name].title for name in self.without)
                parts.append(f"none of {names}")
        return ", ".join(parts)


def score(network: Network, inputs: Tensor, target: int, method: str, settings: Settings) -> Scored:
    """Compute one photograph's attribution by one method, with its scores."""
    scored = attributed(network, inputs, target, method, settings)
    if settings.scores == "none":
        return scored
    return rate(network, inputs, [(target, {method: scored})], settings).maps[0][method]


def attributed(
    network: Network, inputs: Tensor, target: int, method: str, settings: Settings
) -> Scored:
    """Compute one photograph's attribution by one method, and time it, without scores.

    The time is that of one call, the quickest of three, or of fewer if they are slow. Afterwards
    the state of torch's generators is as before.

    Args:
        network: The network, in eval mode.
        inputs: (1, C, H, W), on the network's device.
        target: The class.
        method: A key of ``METHODS``.
        settings: See there.

    Raises:
        ValueError: The method cannot be used with this network.
    """
    with quietly():
        attribute = METHODS[method].make(network, settings)
        attribution, seconds = _timed(
            lambda: attribute(inputs, target=target), inputs, settings.seed
        )
    return Scored(attribution.detach()[0].float().cpu(), math.nan, math.nan, seconds)


def rate(
    network: Network,
    inputs: Tensor,
    explained: Sequence[tuple[int, Mapping[str, Scored]]],
    settings: Settings,
) -> Rated:
    """Score one photograph's attributions, all over the same perturbations.

    The scores are Captum's. Infidelity, at its best scale (``normalize=True``), is over random
    squares filled with uniform noise; a method that multiplies by the inputs is scored with
    perturbations relative to the inputs, as Captum asks. Max-sensitivity is over uniform noise.

    Quick scores end with `BUDGET`, up to the call that runs then. Infidelity may take half of it,
    and is over as many squares as fit, 8 at least. In the rest, every method gets the same number
    of draws for max-sensitivity, as far as ``seconds`` of one call can tell. If not even one
    fits, the slowest methods get none. What is cut is the end: the perturbations
    that remain are the first of those of full scores, so that full scores do not depend on time.

    Afterwards the state of torch's generators is as before.

    Args:
        network: The network, in eval mode.
        inputs: (1, C, H, W), on the network's device.
        explained: Targets, each with the attributions by some methods of ``METHODS``.
        settings: Those with which the attributions were made; ``scores`` says how well to score.
    """
    start = time.perf_counter()
    budget = BUDGET if settings.scores == "quick" else math.inf
    with quietly():
        torch.manual_seed(settings.seed)
        answers = _answers(network, inputs, start + budget / 2)
        torch.manual_seed(settings.seed)
        near = nearby(network, inputs, SENSITIVITY_SAMPLES)
        state = torch.get_rng_state()
        left = budget - (time.perf_counter() - start)
        draws, without = _affordable(explained, left)
        near = near[:draws]
        maps = []
        for target, scored in explained:
            done = {}
            for method, each in scored.items():
                attribution = each.attribution[None].to(inputs)
                chosen = METHODS[method]
                unfaithful = answers.infidelity(
                    attribution,
                    target,
                    chosen.multiplies_by_inputs,
                    torch.zeros_like(inputs),
                    normalize=True,
                )
                unstable = math.nan
                if draws and method not in without:
                    # Noise of the method's own is the same whatever other methods were asked for.
                    torch.set_rng_state(state)
                    attribute = _detached(chosen.make(network, settings))
                    unstable = max(
                        max_sensitivity(attribute, inputs, attribution, part, target)
                        for part in torch.split(near, at_once(network))
                    )
                done[method] = replace(each, infidelity=unfaithful, sensitivity=unstable)
            maps.append(done)
    return Rated(tuple(maps), len(answers.perturbed), draws, without)


def _answers(network: Network, inputs: Tensor, end: float) -> Answers:
    """Run the network on squares of noise, as many as time allows."""
    perturbed = squares(network, inputs, INFIDELITY_SAMPLES)
    some = min(INFIDELITY_SAMPLES, at_once(network), _FEWEST_SQUARES)
    scores: list[Tensor] = []
    with torch.no_grad():
        for part in torch.split(perturbed, some):
            if scores and time.perf_counter() > end and len(scores) * some >= _FEWEST_SQUARES:
                break
            scores.append(network.model(part))
        own = network.model(inputs)
    found = torch.cat(scores)
    return Answers(inputs, perturbed[: len(found)], own, found)


def _affordable(
    explained: Sequence[tuple[int, Mapping[str, Scored]]], seconds: float
) -> tuple[int, tuple[str, ...]]:
    """Return how many draws of each method fit into so many seconds, and which get none."""
    costs: dict[str, float] = {}
    for _, maps in explained:
        for method, each in maps.items():
            costs[method] = costs.get(method, 0.0) + each.seconds
    left_out: list[str] = []
    for method in sorted(costs, key=costs.__getitem__, reverse=True):
        one = sum(costs.values()) - sum(costs[name] for name in left_out)
        if one <= seconds:
            fit = SENSITIVITY_SAMPLES if one <= 0 else min(seconds / one, SENSITIVITY_SAMPLES)
            return int(fit), tuple(left_out)
        left_out.append(method)
    return 0, tuple(left_out)


def _detached(attribute: Attribute) -> Callable[[Any, Any], Tensor]:
    def attributed(inputs: Any, target: Any) -> Tensor:
        found: Tensor = attribute(inputs.detach().clone(), target=target)
        return found.detach().contiguous()

    return attributed


def _timed(attribute: Callable[[], Tensor], inputs: Tensor, seed: int) -> tuple[Tensor, float]:
    """Return the attribution, and the seconds of the fastest of up to three calls."""
    fastest, spent = math.inf, 0.0
    for _ in range(3):
        torch.manual_seed(seed)
        start = time.perf_counter()
        attribution = attribute()
        if inputs.is_cuda:
            torch.cuda.synchronize(inputs.device)
        seconds = time.perf_counter() - start
        fastest, spent = min(fastest, seconds), spent + seconds
        if spent > 1:
            break
    return attribution, fastest


@contextmanager
def quietly() -> Iterator[None]:
    """Hide Captum's warnings on every ordinary call, and restore torch's generators."""
    with warnings.catch_warnings(), forked_generators():
        warnings.filterwarnings("ignore", message=".*required_grads has been set automatically")
        warnings.filterwarnings("ignore", message="Setting .* hooks on ReLU")
        warnings.filterwarnings("ignore", message=UNUSED)  # which is said once, elsewhere
        yield
