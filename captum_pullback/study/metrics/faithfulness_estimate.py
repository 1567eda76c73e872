"""Whether removing features with larger attributions lowers the score more."""

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
    r"""The faithfulness estimate of several attributions.

    Features are ordered by their attribution, the largest first, and split in this order into
    disjoint sets :math:`S_1, S_2, \ldots`:

    .. math::
        \operatorname{corr}_k \left(
            \sum_{i \in S_k} a_i,\; f(x) - f(x_{[x_{S_k} = \bar x_{S_k}]})\right)

    One set at a time is at the baseline, and corr is Pearson's correlation. With one feature in
    each step the order does not matter, and the result is `faithfulness_correlation` over all sets
    of one feature. Source: Alvarez-Melis and Jaakkola 2018, arXiv 1806.07538, who took one feature
    in each step.

    Args:
        forward_func: The network; its output has shape (N, ...).
        inputs: Floating point, (N, ...).
        attributions: K tensors that broadcast to the inputs, or one tensor (K, N, ...).
        target: Which output is the score, as Captum takes it.
        additional_forward_args: Passed to the network; tensors of N rows are split like the inputs.
        baselines: See `faithfulness_correlation`.
        features: See there.
        features_in_step: How many features are set to the baseline at once.
        multiplies_by_inputs: See `faithfulness_correlation`.
        at_once: The largest batch that the network is given.

    Returns:
        (K, N), in float64 if the device supports it, within [-1, 1]; higher is better. NaN if
        either side is the same in all steps.

    Raises:
        ValueError: A size or a shape does not fit.
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
    """The sum of the values in each step, and the score with its features at the baseline.

    Args:
        ablation: The network and the inputs.
        order: (K, N, F); the largest come first.
        values: What is summed, (K, N, F).
        features_in_step: How many features a step takes.
        baselines: See `Ablation.without`.

    Returns:
        Two tensors (K, N, steps).
    """
    turns = at_step(order, features_in_step)
    if features_in_step == 1:  # all maps need the same inputs, each in its own order
        each = torch.eye(ablation.count, dtype=torch.bool, device=order.device)
        scores = ablation.without(each, baselines).expand(len(order), -1, -1)
        by_turn = turns.argsort(-1)
        return values.gather(-1, by_turn), scores.gather(-1, by_turn)
    steps = int(turns.max()) + 1
    sums = values.new_zeros(*values.shape[:-1], steps).scatter_add_(-1, turns, values)
    numbers = torch.arange(steps, device=order.device)[:, None]
    found = [ablation.without(each[:, None] == numbers, baselines) for each in turns]
    return sums, torch.stack(found)
