"""Whether attributions tell how much the score falls when some features are taken away."""

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
    r"""The faithfulness correlation of any number of attributions, over the same perturbations.

    For sets S of features,

    .. math::
        \operatorname{corr}_S \left(\sum_{i \in S} a_i,\; f(x) - f(x_{[x_S = \bar x_S]})\right)

    where :math:`x_{[x_S = \bar x_S]}` has the features of S set to the baseline, and corr is
    Pearson's. The network sees each perturbed input once, whatever the number of attributions.
    Source: Bhatt et al. 2020, arXiv 2005.00631.

    Args:
        forward_func: The network; its output is (N, ...).
        inputs: (N, ...), of floating point.
        attributions: K tensors that broadcast to the inputs, or a tensor (K, N, ...).
        target: The output to look at, as Captum takes it.
        additional_forward_args: Of the network; tensors of N rows go with their examples.
        baselines: What features are set to, in the network's input space: a number, or a tensor
            that broadcasts to the inputs.
        features: n for a grid of n x n cells, a mask as Captum's ``feature_mask``, or None for
            each entry by itself.
        subset_size: How many features are set to the baseline at once.
        samples: How many sets there are: drawn at random, the same for all examples; each once
            where there are no more.
        multiplies_by_inputs: Whether attributions are contributions, as those of Integrated
            Gradients, which are summed as they are; or derivatives, as a gradient, which are
            multiplied by x minus the baseline first. One for all, or one for each.
        at_once: How many examples the network sees at once, at most.
        seed: Of the sets; torch's generators stay as they were.

    Returns:
        (K, N), of float64 where the device has it, within [-1, 1], higher being better; NaN where
        either side is the same for all sets.

    Raises:
        ValueError: A size or a shape that does not fit.
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
    """Sets of so many of ``count`` features, as rows (sets, count) of bool.

    All of them, each once, if there are no more than ``samples``; else so many drawn at random.
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
