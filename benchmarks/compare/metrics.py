"""What the methods are scored by: each metric with its direction and source, for one photograph.

The network is asked once about each set of perturbed inputs and Captum's metric is given its
answers again, so that twenty methods cost hardly more than one, and all see the same perturbations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from captum.metrics import infidelity, infidelity_perturb_func_decorator, sensitivity_max
from scipy.stats import spearmanr
from torch import Tensor

from captum_pullback.perturbations import gaussian_noise
from captum_pullback.study.scores import (
    SENSITIVITY_RADIUS,
    noise_squares_of,
    uniform_noise_of,
)
from captum_pullback.zoo.networks import Network

# Standard deviation of the Gaussian perturbation, of the pixels' range. At 0.1 no method could be
# told from random noise on the reference networks; at 0.02 they can.
GAUSSIAN = 0.02

_YEH = "Yeh et al. 2019, arXiv 1901.09392; captum.metrics"


@dataclass(frozen=True)
class Metric:
    """A metric as reports show it.

    Attributes:
        title: For people.
        better: ``"lower"`` or ``"higher"``.
        source: Who proposed it, and whose code it is.
        meaning: What the number is.
        of_machine: Whether it depends on how fast the machine is; all others are the same to the
            last digit when they are measured again on a CPU.
    """

    title: str
    better: str
    source: str
    meaning: str
    of_machine: bool = False


METRICS: dict[str, Metric] = {
    "infidelity": Metric(
        "Infidelity, squares",
        "lower",
        _YEH + ", normalize=True",
        "squares of 1/2 and 1/4 of the side filled with uniform noise; at the attribution's best "
        "scale; in squared units of the score",
    ),
    "infidelity_raw": Metric(
        "Infidelity, squares, raw", "lower", _YEH, "the same squares, at the scale as it is"
    ),
    "infidelity_gaussian": Metric(
        "Infidelity, Gaussian",
        "lower",
        _YEH + ", normalize=True",
        f"Gaussian noise of {GAUSSIAN:g} of the pixels' range; at the attribution's best scale",
    ),
    "infidelity_gaussian_raw": Metric(
        "Infidelity, Gaussian, raw", "lower", _YEH, "the same noise, at the scale as it is"
    ),
    "max_sensitivity": Metric(
        "Max-sensitivity",
        "lower",
        _YEH,
        f"greatest relative change under uniform noise within {SENSITIVITY_RADIUS:g} of the "
        "pixels' range",
    ),
    "box_share": Metric(
        "Share in the box",
        "higher",
        "as AttributionLocalisation, Kohlbrenner et al. 2020, arXiv 1910.09840",
        "share of the positive part of the attribution, summed over channels, inside the object's "
        "box; random noise shows the box's share of the picture",
    ),
    "pointing_game": Metric(
        "Pointing game",
        "higher",
        "Zhang et al. 2018, arXiv 1608.00507",
        "whether the greatest attribution, summed over channels, lies inside the box",
    ),
    "convergence_delta": Metric(
        "Convergence delta",
        "lower",
        "Sundararajan et al. 2017, arXiv 1703.01365; captum's compute_convergence_delta",
        "how far the attributions' sum is from the score's rise above the baseline's, absolute; "
        "for methods that should be complete",
    ),
    "random_logit": Metric(
        "Random-logit test",
        "lower",
        "Sixt et al. 2020, arXiv 1912.09818",
        "absolute Spearman correlation of the map, summed over channels, with that of a random "
        "other class: 0 if one map does not tell the other",
    ),
    "randomisation": Metric(
        "Cascading randomisation",
        "lower",
        "Adebayo et al. 2018, arXiv 1810.03292",
        "Spearman correlation of absolute maps before and after the network's parts are "
        "reinitialised from the output back; a curve",
    ),
    "time": Metric(
        "Time",
        "lower",
        "",
        "wall time per image over that of the plain gradient just before",
        of_machine=True,
    ),
    "memory": Metric(
        "Memory",
        "lower",
        "",
        "peak of what a call allocates per image, over that of the plain gradient",
        of_machine=True,
    ),
}


@dataclass(frozen=True)
class Answers:
    """Perturbed copies of one input, and what the network said of it and of them.

    Attributes:
        inputs: (1, C, H, W).
        perturbed: (n, C, H, W).
        score: The network's output for ``inputs``, (1, classes).
        scores: Its output for ``perturbed``, (n, classes).
    """

    inputs: Tensor
    perturbed: Tensor
    score: Tensor
    scores: Tensor

    @classmethod
    @torch.no_grad()
    def ask(
        cls, model: Callable[[Tensor], Tensor], inputs: Tensor, perturbed: Tensor, at_once: int
    ) -> Answers:
        """Runs the network, over so many perturbed inputs at once."""
        scores = torch.cat([model(part) for part in torch.split(perturbed, at_once)])
        return cls(inputs, perturbed, model(inputs), scores)

    def infidelity(
        self,
        attributions: Tensor,
        target: int,
        multiplies_by_inputs: bool,
        baseline: Tensor,
        normalize: bool,
    ) -> float:
        """Captum's infidelity of attributions (1, C, H, W), over these perturbations."""

        def perturb(_: Tensor, __: Any = None) -> Tensor:
            return self.perturbed

        def forward(inputs: Tensor) -> Tensor:
            return self.scores if inputs is self.perturbed else self.score

        decorate = infidelity_perturb_func_decorator(multiplies_by_inputs)
        return float(
            infidelity(
                forward,
                decorate(perturb),
                self.inputs,
                attributions,
                baselines=baseline,
                target=target,
                n_perturb_samples=len(self.perturbed),
                normalize=normalize,
            )
        )


def squares(network: Network, inputs: Tensor, count: int) -> Tensor:
    """Copies (count, C, H, W) of one input with a square of noise each, as `fit_temperature`'s."""
    return noise_squares_of(network)(inputs.repeat(count, 1, 1, 1))


def gaussian(network: Network, inputs: Tensor, count: int) -> Tensor:
    """Copies of one input with Gaussian noise of `GAUSSIAN` of the pixels' range."""
    deviation = GAUSSIAN / torch.tensor(network.std).view(-1, 1, 1)
    return gaussian_noise(deviation)(inputs.repeat(count, 1, 1, 1))


def nearby(network: Network, inputs: Tensor, count: int) -> Tensor:
    """Copies of one input with uniform noise within the radius of max-sensitivity."""
    return uniform_noise_of(network)(inputs.repeat(count, 1, 1, 1))


def max_sensitivity(
    attribute: Callable[[Any, Any], Tensor], inputs: Tensor, base: Tensor, near: Tensor, target: int
) -> float:
    """Captum's max-sensitivity at one input, over these neighbours.

    Args:
        attribute: From inputs and a target to attributions.
        inputs: (1, C, H, W).
        base: The attribution at ``inputs``, which is not computed again.
        near: The neighbours, (n, C, H, W).
        target: The class.
    """

    def explain(given: Any, target: int) -> Any:
        return (base,) if isinstance(given, tuple) else attribute(given, target)

    found = sensitivity_max(
        explain,
        inputs,
        perturb_func=lambda _: near,
        n_perturb_samples=len(near),
        max_examples_per_batch=len(near),
        target=target,
    )
    return float(found)


def box_share(attribution: Tensor, inside: Tensor) -> float:
    """Share of a map's positive part, (C, H, W), in a mask (H, W); NaN if nothing is positive."""
    positive = attribution.double().sum(0).clamp(min=0).cpu()
    total = float(positive.sum())
    return float(positive[inside].sum()) / total if total > 0 else math.nan


def pointing_game(attribution: Tensor, inside: Tensor) -> float:
    """1 if the greatest value of a map (C, H, W) lies in a mask (H, W), else 0."""
    return float(inside.flatten()[int(attribution.double().sum(0).cpu().argmax())])


def similarity(one: Tensor, other: Tensor, absolute: bool) -> float:
    """Spearman's rank correlation of two maps (C, H, W) summed over channels.

    NaN where a map is constant, as one without gradient is.
    """
    maps = [values.double().sum(0).flatten().cpu() for values in (one, other)]
    if absolute:
        maps = [values.abs() for values in maps]
    if any(bool((values == values[0]).all()) for values in maps):
        return math.nan
    return float(spearmanr(*(values.numpy() for values in maps)).statistic)


def chosen(names: Sequence[str]) -> list[str]:
    """These metrics in the order in which reports show them.

    Raises:
        KeyError: One of them is unknown.
    """
    for name in names:
        METRICS[name]
    return [name for name in METRICS if name in names]
