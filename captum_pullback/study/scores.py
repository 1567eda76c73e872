"""What an attribution is worth: Captum's infidelity and max-sensitivity, and its time."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from captum.metrics import infidelity, infidelity_perturb_func_decorator, sensitivity_max
from torch import Tensor

from captum_pullback.perturbations import forked_generators
from captum_pullback.study.methods import METHODS, Settings, at_once
from captum_pullback.study.metrics.disturbances import (
    SENSITIVITY_RADIUS,
    noise_squares_of,
    uniform_noise_of,
)
from captum_pullback.study.softness import UNUSED
from captum_pullback.zoo.networks import Network

INFIDELITY_SAMPLES = 32
SENSITIVITY_SAMPLES = 10

#: What the scores are, in the words of the table's last line.
SCORES = (
    f"infidelity: {INFIDELITY_SAMPLES} squares of 1/2 and 1/4 of the side, replaced by noise; "
    f"max-sensitivity: {SENSITIVITY_SAMPLES} draws of noise within {SENSITIVITY_RADIUS:g} of the "
    "pixels' range; lower is better"
)


@dataclass(frozen=True)
class Scored:
    """An attribution (C, H, W) and what it was worth; the scores are NaN where not asked for."""

    attribution: Tensor
    infidelity: float
    sensitivity: float
    seconds: float


def score(network: Network, inputs: Tensor, target: int, method: str, settings: Settings) -> Scored:
    """One photograph's attribution by one method, with its scores and its time.

    The scores are Captum's. Infidelity, at its best scale (``normalize=True``), is over random
    squares filled with uniform noise, the same ones for every method; a method that multiplies by
    the inputs is scored with perturbations relative to the inputs, as Captum asks. Max-sensitivity
    is over uniform noise. The time is that of one call, the quickest of two or three.
    Afterwards the state of torch's generators is as before.

    Args:
        network: the network, in eval mode.
        inputs: (1, C, H, W), on the network's device.
        target: the class.
        method: a key of ``METHODS``.
        settings: see there.
    """
    with quietly():
        attribute = METHODS[method].make(network, settings)
        attribution, seconds = _timed(
            lambda: attribute(inputs, target=target), inputs, settings.seed
        )
        scores = (math.nan, math.nan)
        if settings.scores:
            scores = rate(network, inputs, target, method, settings, attribution)
    return Scored(attribution.detach()[0].float().cpu(), *scores, seconds)


def rate(
    network: Network,
    inputs: Tensor,
    target: int,
    method: str,
    settings: Settings,
    attribution: Tensor,
) -> tuple[float, float]:
    """Infidelity and max-sensitivity of an attribution (1, C, H, W): see `score`."""
    chosen = METHODS[method]
    attribute = chosen.make(network, settings)
    with quietly():
        torch.manual_seed(settings.seed)
        decorate = infidelity_perturb_func_decorator(chosen.multiplies_by_inputs)
        unfaithful = infidelity(
            network.model,
            decorate(noise_squares_of(network)),
            inputs,
            attribution,
            target=target,
            n_perturb_samples=INFIDELITY_SAMPLES,
            max_examples_per_batch=min(INFIDELITY_SAMPLES, at_once(network)),
            normalize=True,
        )
        torch.manual_seed(settings.seed)
        unstable = sensitivity_max(
            lambda values: attribute(values, target=target),
            inputs,
            perturb_func=uniform_noise_of(network),
            n_perturb_samples=SENSITIVITY_SAMPLES,
            max_examples_per_batch=min(SENSITIVITY_SAMPLES, at_once(network)),
        )
    return float(unfaithful), float(unstable)


def _timed(attribute: Callable[[], Tensor], inputs: Tensor, seed: int) -> tuple[Tensor, float]:
    """The attribution, and the seconds of the fastest of three calls, or two if they are slow."""
    fastest, spent = math.inf, 0.0
    for call in range(3):
        torch.manual_seed(seed)
        start = time.perf_counter()
        attribution = attribute()
        if inputs.is_cuda:
            torch.cuda.synchronize(inputs.device)
        seconds = time.perf_counter() - start
        fastest, spent = min(fastest, seconds), spent + seconds
        if spent > 10 or (spent > 1 and call):
            break
    return attribution, fastest


@contextmanager
def quietly() -> Iterator[None]:
    """Without Captum's warnings on every ordinary call; torch's generators stay as they were."""
    with warnings.catch_warnings(), forked_generators():
        warnings.filterwarnings("ignore", message=".*required_grads has been set automatically")
        warnings.filterwarnings("ignore", message="Setting .* hooks on ReLU")
        warnings.filterwarnings("ignore", message=UNUSED)  # which is said once, elsewhere
        yield
