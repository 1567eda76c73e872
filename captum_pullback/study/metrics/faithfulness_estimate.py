"""Whether features that are said to contribute more lower the score more, step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from captum_pullback.study.metrics.ablation import Ablation
from captum_pullback.study.metrics.correlation import pearson
from captum_pullback.study.metrics.steps import at_step

__all__ = ["faithfulness_estimate", "in_steps"]


def faithfulness_estimate(
    forward_func: Callable[..., Any],
    inputs: Tensor,
    attributions: Sequence[Tensor] | Tensor,
    target: Any = None,
    additional_forward_args: Any = None,
    *,
    baselines: float | Tensor = 0.0,
    features: int | Tensor | None = 4,
    features_in_step: int = 1,
    multiplies_by_inputs: bool | Sequence[bool] = True,
    at_once: int = 64,
) -> Tensor:
    r"""The faithfulness estimate of any number of attributions.

    Features are ordered by what the attribution says of them, the greatest first, and taken some
    at a time, which makes disjoint sets :math:`S_1, S_2, \ldots` of them all:

    .. math::
        \operatorname{corr}_k \left(
            \sum_{i \in S_k} a_i,\; f(x) - f(x_{[x_{S_k} = \bar x_{S_k}]})\right)

    with one set at the baseline at a time, the others being as they were, and Pearson's
    correlation. With one feature in a step the order does not matter, and it is
    `faithfulness_correlation` over all sets of one. Source: Alvarez-Melis and Jaakkola 2018, arXiv
    1806.07538, who took one feature in a step.

    Args:
        forward_func: The network; its output is (N, ...).
        inputs: (N, ...), of floating point.
        attributions: K tensors that broadcast to the inputs, or a tensor (K, N, ...).
        target: The output to look at, as Captum takes it.
        additional_forward_args: Of the network; tensors of N rows go with their examples.
        baselines: As of `faithfulness_correlation`.
        features: As there.
        features_in_step: How many features are set to the baseline at once.
        multiplies_by_inputs: As of `faithfulness_correlation`.
        at_once: How many examples the network sees at once, at most.

    Returns:
        (K, N), of float64 where the device has it, within [-1, 1], higher being better; NaN where
        either side is the same in all steps.

    Raises:
        ValueError: A size or a shape that does not fit.
    """
    ablation = Ablation(
        forward_func, inputs, target, additional_forward_args,
        baselines=baselines, features=features, at_once=at_once,
    )  # fmt: skip
    sums = ablation.sums(attributions, multiplies_by_inputs)
    expected, scores = in_steps(ablation, sums, sums, features_in_step)
    return pearson(expected, ablation.plain[:, None] - scores)


def in_steps(
    ablation: Ablation,
    order: Tensor,
    values: Tensor,
    features_in_step: int,
    baselines: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Sums of values in each step, and the score with that step's features at the baseline.

    Args:
        ablation: Of the network and the inputs.
        order: (K, N, F); the greatest come first.
        values: (K, N, F), what is summed.
        features_in_step: How many features a step takes.
        baselines: See `Ablation.without`.

    Returns:
        Two tensors (K, N, steps).
    """
    turns = at_step(order, features_in_step)
    if features_in_step == 1:  # all maps ask for the same inputs, in their own order
        each = torch.eye(ablation.count, dtype=torch.bool, device=order.device)
        scores = ablation.without(each, baselines).expand(len(order), -1, -1)
        by_turn = turns.argsort(-1)
        return values.gather(-1, by_turn), scores.gather(-1, by_turn)
    steps = int(turns.max()) + 1
    sums = values.new_zeros(*values.shape[:-1], steps).scatter_add_(-1, turns, values)
    numbers = torch.arange(steps, device=order.device)[:, None]
    found = [ablation.without(each[:, None] == numbers, baselines) for each in turns]
    return sums, torch.stack(found)
