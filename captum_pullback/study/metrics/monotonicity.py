"""Whether features with larger attributions have larger effects on the score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from captum_pullback.perturbations import seeded
from captum_pullback.study.metrics.ablation import Ablation
from captum_pullback.study.metrics.correlation import spearman
from captum_pullback.study.metrics.faithfulness_estimate import in_steps

__all__ = ["monotonicity"]


def monotonicity(
    forward_func: Callable[..., Any],
    inputs: Tensor,
    attributions: Sequence[Tensor] | Tensor,
    target: Any = None,
    additional_forward_args: Any = None,
    *,
    low: float | Tensor = 0.0,
    high: float | Tensor = 0.0,
    samples: int = 10,
    features: int | Tensor | None = 4,
    features_in_step: int = 1,
    multiplies_by_inputs: bool | Sequence[bool] = True,
    at_once: int = 64,
    seed: int = 0,
) -> Tensor:
    r"""The monotonicity of several attributions, as a rank correlation.

    Features are ordered by their absolute attributions, and split in this order into disjoint sets
    :math:`S_1, S_2, \ldots`:

    .. math::
        \rho_k \left(\sum_{i \in S_k} |a_i|,\;
            \mathbb E_z \left(f(x) - f(x_{[x_{S_k} = z_{S_k}]})\right)^2\right)

    where z is uniform between two bounds and :math:`\rho` is Spearman's correlation. Signs do not
    count: evidence against the class counts as much as evidence for it. Source: Nguyen and Martinez
    2020, arXiv 2007.07584, who take one feature in each step and divide the right side by
    :math:`f(x)^2`, which does not change the order.

    Args:
        forward_func: The network; its output has shape (N, ...).
        inputs: Floating point, (N, ...).
        attributions: K tensors that broadcast to the inputs, or one tensor (K, N, ...).
        target: Which output is the score, as Captum takes it.
        additional_forward_args: Passed to the network; tensors of N rows are split like the inputs.
        low: The lowest value that replaces a feature, in the network's input space: a number, or a
            tensor that broadcasts to the inputs.
        high: The highest one. If it equals ``low`` everywhere, that value is the baseline, and
            nothing is drawn.
        samples: How many times z is drawn; the draws are the same for all examples and steps.
        features: See `faithfulness_correlation`.
        features_in_step: How many features are replaced at once.
        multiplies_by_inputs: See `faithfulness_correlation`; derivatives are multiplied by x minus
            the middle of the bounds.
        at_once: The largest batch that the network is given.
        seed: For the draws; the state of torch's generators does not change.

    Returns:
        (K, N), in float64 if the device supports it, within [-1, 1]; higher is better. NaN if
        either side is the same in all steps.

    Raises:
        ValueError: A size or a shape does not fit.
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, not {samples}")
    bottom, top = (torch.as_tensor(bound).to(inputs) for bound in (low, high))
    ablation = Ablation(
        forward_func, inputs, target, additional_forward_args,
        baselines=(bottom + top) / 2, features=features, at_once=at_once,
    )  # fmt: skip
    sizes = ablation.sums(attributions, multiplies_by_inputs).abs()
    if bool((bottom == top).all()):
        draws = [bottom]
    else:
        with seeded(seed):
            noise = [torch.rand(inputs.shape[1:]).to(inputs) for _ in range(samples)]
        draws = [bottom + (top - bottom) * part for part in noise]
    changes = torch.zeros(())
    for drawn in draws:
        said, scores = in_steps(ablation, -sizes, sizes, features_in_step, drawn)
        changes = changes.to(scores) + (ablation.plain[:, None] - scores).square()
    return spearman(said, changes)
