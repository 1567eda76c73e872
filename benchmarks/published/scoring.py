"""All scores of one photograph, or of one mosaic: units of work that depend on nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.compare import scoring
from benchmarks.compare.scoring import Score, derive, sow
from benchmarks.published.protocol import BOUNDS, FINE, GRIDS, METHODS, NEIGHBORS
from captum_pullback.perturbations import seeded
from captum_pullback.study import metrics
from captum_pullback.study.methods import Attribute, at_once
from captum_pullback.study.metrics.ablation import Ablation
from captum_pullback.study.scores import quietly
from captum_pullback.zoo.networks import Network

__all__ = ["mosaic", "photograph", "tiled_infidelity"]


def photograph(
    network: Network, attributes: Mapping[str, Attribute], inputs: Tensor, target: int, name: str
) -> list[Score]:
    """All scores of one photograph.

    Args:
        network: That takes pixels in [-1, 1].
        attributes: By methods of `METHODS`, in order.
        inputs: (1, 3, H, W).
        target: The class.
        name: Of the photograph, from which seeds are drawn.
    """
    with quietly():
        return _scores(network, attributes, inputs, target, name)


def _scores(
    network: Network, attributes: Mapping[str, Attribute], inputs: Tensor, target: int, name: str
) -> list[Score]:
    model, most = network.model, at_once(network)
    maps, forms = [], []
    for method, attribute in attributes.items():
        sow(derive(0, name, method))
        maps.append(_detached(attribute, inputs, target))
        forms.append(METHODS[method].multiplies_by_inputs)
    of_patch = inputs[0].numel() // FINE**2
    given = (model, inputs, maps, target)

    def infidelity(stay: bool) -> Tensor:
        return tiled_infidelity(*given, forms, stay=stay, at_once=most)

    def by(metric: Callable[..., Tensor], **options: Any) -> Tensor:
        return metric(*given, **options, multiplies_by_inputs=forms, at_once=most)[:, 0]

    found = {
        "infidelity": infidelity(stay=True),
        "infidelity_one": infidelity(stay=False),
        "correlation": by(metrics.faithfulness_correlation, features=FINE),
        "estimate": by(metrics.faithfulness_estimate, features=None, features_in_step=of_patch),
        "monotonicity": by(metrics.monotonicity, features=None, features_in_step=of_patch),
    }
    scores = [
        Score(method, metric, "", 0, float(value))
        for metric, values in found.items()
        for method, value in zip(attributes, values, strict=True)
    ]
    with torch.no_grad():
        classes = model(inputs).shape[1]
    with seeded(derive(0, name, "noise")):
        noise = (torch.rand(NEIGHBORS, *inputs.shape[1:]) * 2 - 1) * BOUNDS
    near = inputs + noise.to(inputs)
    for (method, attribute), own in zip(attributes.items(), maps, strict=True):
        sow(derive(0, name, "sensitivity", method))
        value = max(
            metrics.max_sensitivity(
                lambda given, target, a=attribute: _detached(a, given, target),  # type: ignore[misc]
                inputs, own, part, target,
            )
            for part in torch.split(near, most)
        )  # fmt: skip
        scores.append(Score(method, "sensitivity", "", 0, value))
        seed = derive(0, name, "random_logit") % 2**32
        alike = metrics.random_logit(attribute, inputs, torch.tensor([target]), classes, seed=seed)
        scores.append(Score(method, "random_logit", "", 0, float(alike)))
    return scores


def mosaic(
    attributes: Mapping[str, Attribute], members: Sequence[Tensor], target: int, inside: Tensor
) -> list[Score]:
    """The share of positive input x attribution in the quadrants of the class.

    Args:
        attributes: By methods of `METHODS`.
        members: Four photographs (1, 3, H, W) in pixels from -1 to 1.
        target: The class of two of them.
        inside: Which they are, (4,).
    """
    inputs, _ = scoring.mosaic(members, 0)
    scores = []
    with quietly():
        for method, attribute in attributes.items():
            found = _detached(attribute, inputs, target)
            times = found if METHODS[method].multiplies_by_inputs else inputs * found
            value = float(metrics.focus(times, inside[None]))
            scores.append(Score(method, "focus", "", 0, value))
    return scores


def tiled_infidelity(
    model: torch.nn.Module,
    inputs: Tensor,
    maps: Sequence[Tensor],
    target: int,
    forms: Sequence[bool],
    *,
    stay: bool,
    at_once: int,
) -> Tensor:
    r"""Infidelity at the best scale over tiles that are set to 0, mean over the sizes of `GRIDS`.

    .. math::
        \min_\beta \frac1S \sum_s \left(\beta \langle x - \tilde x_s, a \rangle
            - (f(x) - f(\tilde x_s))\right)^2

    Args:
        model: The network.
        inputs: (1, C, H, W).
        maps: K of the same shape.
        target: The class.
        forms: Of each map, whether it is contributions.
        stay: Whether tiles before remain at 0, as in Quantus 0.6, or one is at 0 at a time.
        at_once: How many perturbed inputs the network sees at once.

    Returns:
        (K,).
    """
    found = []
    for grid in GRIDS:
        ablation = Ablation(model, inputs, target, features=grid, at_once=at_once)
        chosen = torch.eye(ablation.count, device=inputs.device)
        chosen = (chosen.cumsum(0) if stay else chosen) > 0
        said = (ablation.sums(maps, forms) @ chosen.T.to(ablation.plain))[:, 0]  # (K, S)
        changes = (ablation.plain[:, None] - ablation.without(chosen))[0]
        squares = said.square().sum(1, keepdim=True)
        scale = (said * changes).sum(1, keepdim=True) / torch.where(squares > 0, squares, 1.0)
        found.append((scale * said - changes).square().mean(1))
    return torch.stack(found).mean(0)


def _detached(attribute: Attribute, inputs: Tensor, target: int) -> Tensor:
    found: Tensor = attribute(inputs.detach().clone().requires_grad_(), target=target)
    return found.detach().contiguous()
