"""The score while features are removed or restored in the order of an attribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from captum_pullback.study.metrics.ablation import Ablation
from captum_pullback.study.metrics.steps import at_step

__all__ = ["area", "deletion", "insertion", "pixel_flipping"]


def pixel_flipping(
    forward_func: Callable[..., Any],
    inputs: Tensor,
    attributions: Sequence[Tensor] | Tensor,
    target: Any = None,
    additional_forward_args: Any = None,
    *,
    baselines: float | Tensor = 0.0,
    features: int | Tensor | None = 8,
    features_in_step: int = 1,
    first: Literal["greatest", "least"] = "greatest",
    insert: bool = False,
    multiplies_by_inputs: bool | Sequence[bool] = True,
    at_once: int = 64,
) -> Tensor:
    r"""The score while features are set to the baseline one after another, and stay there.

    .. math::
        f(x^{(0)}), f(x^{(1)}), \ldots, \qquad x^{(0)} = x, \quad
        x^{(k)} = x^{(k-1)}_{[x_{S_k} = \bar x_{S_k}]}

    where :math:`S_1, S_2, \ldots` are the features in the order of their attributions. Source: Bach
    et al. 2015, doi 10.1371/journal.pone.0130140; for regions, Samek et al. 2017, arXiv 1509.06321.

    Args:
        forward_func: The network; its output has shape (N, ...). Add a softmax to it if the score
            is to be a probability.
        inputs: Floating point, (N, ...).
        attributions: K tensors that broadcast to the inputs, or one tensor (K, N, ...).
        target: Which output is the score, as Captum takes it.
        additional_forward_args: Passed to the network; tensors of N rows are split like the inputs.
        baselines: See `faithfulness_correlation`; for insertion this is usually a blurred copy.
        features: See there.
        features_in_step: How many features are in a step.
        first: Whether features with the largest attributions come first, or those with the
            smallest.
        insert: Whether to start from the baseline and restore features instead.
        multiplies_by_inputs: See `faithfulness_correlation`.
        at_once: The largest batch that the network is given.

    Returns:
        (K, N, steps + 1), in float64 if the device supports it: the score before the first step and
        after each.

    Raises:
        ValueError: A size or a shape does not fit.
    """
    ablation = Ablation(
        forward_func, inputs, target, additional_forward_args,
        baselines=baselines, features=features, at_once=at_once,
    )  # fmt: skip
    sums = ablation.sums(attributions, multiplies_by_inputs)
    turns = at_step(sums if first == "greatest" else -sums, features_in_step)
    steps = torch.arange(1, int(turns.max()) + 1, device=inputs.device)[:, None]
    # The two ends are the same for all maps.
    whole = ablation.plain[:, None]
    bare = ablation.without(torch.ones(1, ablation.count, dtype=torch.bool))
    start, end = (bare, whole) if insert else (whole, bare)
    curves = []
    for each in turns:
        done = each[:, None] < steps
        between = ablation.without(~done if insert else done) if len(steps) else whole[:, :0]
        curves.append(torch.cat([start, between, end], 1))
    return torch.stack(curves)


def deletion(*args: Any, **options: Any) -> Tensor:
    """The `area` under `pixel_flipping`: lower is better.

    Source: Petsiuk et al. 2018, arXiv 1806.07421.

    Args:
        *args: As for `pixel_flipping`.
        **options: As for `pixel_flipping`, except ``first`` and ``insert``.

    Returns:
        (K, N).
    """
    return area(pixel_flipping(*args, **options))


def insertion(*args: Any, **options: Any) -> Tensor:
    """The `area` under the score while features are restored: higher is better.

    Source: Petsiuk et al. 2018, arXiv 1806.07421, who start from a blurred image.

    Args:
        *args: As for `pixel_flipping`.
        **options: As for `pixel_flipping`, except ``first`` and ``insert``.

    Returns:
        (K, N).
    """
    return area(pixel_flipping(*args, insert=True, **options))


def area(curves: Tensor) -> Tensor:
    """The area under curves (..., steps + 1), scaled to a width of 1, by the trapezoidal rule."""
    found: Tensor = torch.trapezoid(curves, dim=-1) / (curves.shape[-1] - 1)
    return found
