"""Whether attributions predict how far the score falls when features are removed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from captum_pullback.perturbations import seeded
from captum_pullback.study.metrics.ablation import Ablation
from captum_pullback.study.metrics.correlation import pearson

__all__ = ["faithfulness_correlation", "subsets"]


def faithfulness_correlation(
    forward_func: Callable[..., Any],
    inputs: Tensor,
    attributions: Sequence[Tensor] | Tensor,
    target: Any = None,
    additional_forward_args: Any = None,
    *,
    baselines: float | Tensor = 0.0,
    features: int | Tensor | None = 4,
    subset_size: int = 1,
    samples: int = 100,
    multiplies_by_inputs: bool | Sequence[bool] = True,
    at_once: int = 64,
    seed: int = 0,
) -> Tensor:
    r"""The faithfulness correlation of several attributions, on the same perturbed inputs.

    For sets S of features,

    .. math::
        \operatorname{corr}_S \left(\sum_{i \in S} a_i,\; f(x) - f(x_{[x_S = \bar x_S]})\right)

    where :math:`x_{[x_S = \bar x_S]}` is x with the features of S set to the baseline, and corr is
    Pearson's correlation. The network runs once on each perturbed input, however many attributions
    there are.
    Source: Bhatt et al. 2020, arXiv 2005.00631.

    Args:
        forward_func: The network; its output has shape (N, ...).
        inputs: Floating point, (N, ...).
        attributions: K tensors that broadcast to the inputs, or one tensor (K, N, ...).
        target: Which output is the score, as Captum takes it.
        additional_forward_args: Passed to the network; tensors of N rows are split like the inputs.
        baselines: The value that features are set to, in the network's input space: a number, or a
            tensor that broadcasts to the inputs.
        features: n for a grid of n x n cells, a mask like Captum's ``feature_mask``, or None if
            each entry is a feature.
        subset_size: How many features are set to the baseline at once.
        samples: How many sets are drawn at random, the same ones for all examples. If there are no
            more sets than that, each is taken once.
        multiplies_by_inputs: True for contributions, such as those of Integrated Gradients, which
            are summed as they are; False for derivatives, such as gradients, which are first
            multiplied by x minus the baseline. One value for all attributions, or one for each.
        at_once: The largest batch that the network is given.
        seed: For the sets; the state of torch's generators does not change.

    Returns:
        (K, N), in float64 if the device supports it, within [-1, 1]; higher is better. NaN if
        either side is the same for all sets.

    Raises:
        ValueError: A size or a shape does not fit.
    """
    ablation = Ablation(
        forward_func, inputs, target, additional_forward_args,
        baselines=baselines, features=features, at_once=at_once,
    )  # fmt: skip
    chosen = subsets(ablation.count, subset_size, samples, seed).to(inputs.device)
    changes = ablation.plain[:, None] - ablation.without(chosen)
    expected = ablation.sums(attributions, multiplies_by_inputs) @ chosen.T.to(changes)
    return pearson(expected, changes)


def subsets(count: int, size: int, samples: int, seed: int) -> Tensor:
    """Sets of ``size`` out of ``count`` features, as rows of bool, (sets, count).

    If there are no more than ``samples`` such sets, each one once; else ``samples`` random ones.
    """
    if not 1 <= size <= count:
        raise ValueError(f"subset_size must be from 1 to the {count} features, not {size}")
    if samples < 2:
        raise ValueError(f"samples must be at least 2, not {samples}")
    if math.comb(count, size) <= samples:
        members = torch.tensor(list(itertools.combinations(range(count), size)))
    else:
        with seeded(seed):
            members = torch.rand(samples, count).topk(size).indices
    return torch.zeros(len(members), count, dtype=torch.bool).scatter_(1, members, True)
