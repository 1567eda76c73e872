"""Means, and paired differences to Integrated Gradients, with bootstrap confidence intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from benchmarks.compare.metrics import METRICS
from benchmarks.intervals import resampled

REFERENCE = "ig"
Array = Any


def mean_difference(one: Array, other: Array, axis: int = -1) -> Array:
    """The mean of what one has more than the other."""
    return np.mean(one - other, axis=axis)


def ratio_of_means(one: Array, other: Array, axis: int = -1) -> Array:
    """How many times as much one has on average."""
    return np.mean(one, axis=axis) / np.mean(other, axis=axis)


def per_image(scores: pd.DataFrame) -> pd.DataFrame:
    """One value for each network, metric, stage, method and photograph: the mean over seeds."""
    keys = ["network", "metric", "stage", "method", "image"]
    known = scores[scores["metric"].isin(METRICS)]
    return known.groupby(keys, sort=False, observed=True)["value"].mean().reset_index()


def summary(scores: pd.DataFrame, reference: str = REFERENCE) -> pd.DataFrame:
    """For each network, metric, stage and method: its mean, and how it compares.

    Photographs are the units of all statistics. Differences and ratios are to the reference
    method (Integrated Gradients) on the same photographs; one on which either has no value (a map
    that is zero everywhere, say) is left out, and ``images`` counts those that are in. Ratios are
    of means, and only where all that is divided by is positive.

    Returns:
        Columns network, metric, stage, method, images, mean, mean_low, mean_high, difference,
        difference_low, difference_high, ratio, ratio_low, ratio_high, better (the share of
        photographs on which it is better than the reference, ties counting half) and
        verdict: "better" or "worse" where the interval of the difference leaves 0 out, else "tie".
    """
    rows = []
    values = per_image(scores)
    for (network, metric, stage), group in values.groupby(
        ["network", "metric", "stage"], sort=False, observed=True
    ):
        wide = group.pivot_table(index="image", columns="method", values="value", sort=False)
        for method in dict.fromkeys(group["method"]):
            if method not in wide:  # nothing but NaN
                continue
            own = wide[method].dropna()
            row = {"network": network, "metric": metric, "stage": stage, "method": method}
            row |= {"images": len(own), "mean": own.mean()}
            row["mean_low"], row["mean_high"] = resampled(np.mean, own.to_numpy())
            if reference in wide:
                both = wide[[method, reference]].dropna() if method != reference else None
                row |= _paired(both, METRICS[metric].better)
            rows.append(row)
    return pd.DataFrame(rows)


def _paired(both: pd.DataFrame | None, better: str) -> dict[str, Any]:
    if both is None or both.empty:
        return {"verdict": ""}
    own, reference = both.iloc[:, 0].to_numpy(), both.iloc[:, 1].to_numpy()
    low, high = resampled(mean_difference, own, reference)
    ratio = ratio_low = ratio_high = float("nan")
    if (reference > 0).all():  # of correlations, say, a ratio would mean nothing
        ratio = float(ratio_of_means(own, reference))
        ratio_low, ratio_high = resampled(ratio_of_means, own, reference)
    sign = -1 if better == "lower" else 1
    ahead = np.sign(own - reference) * sign
    verdict = "tie"
    if low > 0 or high < 0:
        verdict = "better" if (low > 0) == (sign > 0) else "worse"
    return {
        "difference": float(mean_difference(own, reference)),
        "difference_low": low,
        "difference_high": high,
        "ratio": ratio,
        "ratio_low": ratio_low,
        "ratio_high": ratio_high,
        "better": float((ahead > 0).mean() + (ahead == 0).mean() / 2),
        "verdict": verdict,
    }
