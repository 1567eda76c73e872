"""Means, and paired differences to a method, with bootstrap confidence intervals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.compare.metrics import METRICS
from benchmarks.intervals import resampled

#: With what all others are compared: what was to be beaten, and what was to beat it.
REFERENCES = ("ig", "pullback")
Array = Any


def mean_difference(one: Array, other: Array, axis: int = -1) -> Array:
    """The mean of what one has more than the other."""
    return np.mean(one - other, axis=axis)


def ratio_of_means(one: Array, other: Array, axis: int = -1) -> Array:
    """How many times as much one has on average."""
    return np.mean(one, axis=axis) / np.mean(other, axis=axis)


def per_image(scores: pd.DataFrame) -> pd.DataFrame:
    """One value for each network, metric, method and photograph: the mean, if there are more."""
    keys = ["network", "metric", "method", "image"]
    known = scores[scores["metric"].isin(METRICS)]
    return known.groupby(keys, sort=False, observed=True)["value"].mean().reset_index()


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """For each network, metric, reference and method: its mean, and how it compares.

    Photographs are the units of all statistics. Differences and ratios are to the reference on the
    same photographs; one on which either has no value (a map that is zero everywhere, say) is left
    out. Ratios are of means, and only where all that is divided by is positive.

    Returns:
        Columns network, metric, reference, method, images, mean, mean_low, mean_high, pairs,
        difference, difference_low, difference_high, ratio, ratio_low, ratio_high, better (the
        share of photographs on which it is better than the reference, ties counting half),
        verdict: "better" or "worse" where the interval of the difference leaves 0 out, else "tie";
        and what scores note, from the first to the last. Of a method that was skipped there is
        only a note, under the metric "skipped".
    """
    rows: list[dict[str, Any]] = []
    values = per_image(scores)
    for (network, metric), group in values.groupby(["network", "metric"], sort=False):
        wide = group.pivot_table(index="image", columns="method", values="value", sort=False)
        here = (scores["network"] == network) & (scores["metric"] == metric)
        note = first_to_last(scores.loc[here, "note"])
        for reference in REFERENCES:
            for method in dict.fromkeys(group["method"]):
                if method not in wide:  # nothing but NaN
                    continue
                own = wide[method].dropna()
                row = {"network": network, "metric": metric, "reference": reference}
                row |= {"method": method, "images": len(own), "mean": own.mean()}
                row["mean_low"], row["mean_high"] = resampled(np.mean, own.to_numpy())
                if reference in wide and method != reference:
                    both = wide[[method, reference]].dropna()
                    row |= _paired(both, METRICS[str(metric)].better)
                rows.append(row | {"note": note})
    skipped = scores[scores["metric"] == "skipped"]
    for network, method, why in skipped[["network", "method", "note"]].to_numpy():
        rows.append({"network": network, "metric": "skipped", "method": method, "note": why})
    return pd.DataFrame(rows)


def first_to_last(notes: Iterable[str]) -> str:
    """The first and the last of notes that begin alike and go on with numbers."""
    ordered = sorted(set(notes), key=lambda note: (len(note), note))  # 9.5 before 10.2
    return " to ".join(dict.fromkeys((ordered[0], ordered[-1])))


def _paired(both: pd.DataFrame, better: str) -> dict[str, Any]:
    if both.empty:
        return {}
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
        "pairs": len(both),
        "difference": float(mean_difference(own, reference)),
        "difference_low": low,
        "difference_high": high,
        "ratio": ratio,
        "ratio_low": ratio_low,
        "ratio_high": ratio_high,
        "better": float((ahead > 0).mean() + (ahead == 0).mean() / 2),
        "verdict": verdict,
    }
