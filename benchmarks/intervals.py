"""The 95 % intervals of all results, by scipy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import bootstrap, t
from scipy.stats.contingency import relative_risk

CONFIDENCE = 0.95
RESAMPLES = 2000
Array = Any


def of_mean(values: Sequence[float]) -> tuple[float, float]:
    """Return a mean and half the width of Student's interval of it; NaN for a single value."""
    array = np.asarray(values, dtype=float)
    if len(array) < 2:
        return float(array.mean()), math.nan
    quantile = t.ppf((1 + CONFIDENCE) / 2, len(array) - 1)
    half = quantile * array.std(ddof=1) / math.sqrt(len(array))
    return float(array.mean()), float(half)


def resampled(
    statistic: Callable[..., Array],
    values: Array,
    *more: Array,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """Return the percentile bootstrap's interval of a statistic of paired samples.

    Args:
        statistic: Of one array or more, along ``axis``.
        values: One number for each photograph, or round.
        more: Further arrays of the same length, resampled together with ``values``.
        seed: Of the resampling.
        resamples: How many are drawn.

    Returns:
        Its ends; NaN for fewer than two values.
    """
    if len(values) < 2:
        return math.nan, math.nan
    found = bootstrap(
        (values, *more),
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def of_ratio(share: float, other: float, count: int) -> tuple[float, float, float] | None:
    """Return how many times a share is another, and Katz's interval, for independent draws.

    Args:
        share: Of ``count`` draws, in [0, 1].
        other: Likewise.
        count: The number of draws behind each.

    Returns:
        The ratio and its interval's ends; None where a share is 0.
    """
    one, two = round(share * count), round(other * count)
    if not (one and two):
        return None
    found = relative_risk(one, count, two, count)
    low, high = found.confidence_interval(CONFIDENCE)
    return float(found.relative_risk), float(low), float(high)
