"""Who is better than whom, read off a summary: what the page and its figure say."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from benchmarks.compare.methods import find
from benchmarks.compare.metrics import METRICS

#: What is asked, and the metric or, where networks differ in what they have, the metrics for it.
ROWS: dict[str, tuple[str, ...]] = {
    "Infidelity": ("infidelity",),
    "Faithfulness correlation": ("faithfulness_correlation",),
    "Max-sensitivity": ("max_sensitivity",),
    "Share in the box or quadrant": ("box_share", "mosaic_share"),
    "Time": ("time",),
    "Memory": ("memory",),
    "Pointing game": ("pointing_game",),
    "Random-logit test": ("random_logit",),
    "Infidelity, small noise": ("infidelity_gaussian",),
    "Infidelity, own scale": ("infidelity_raw",),
}
_OPPOSITE = {"better": "worse", "worse": "better", "tie": "tie"}


@dataclass(frozen=True)
class Verdict:
    """How a method compares with another, by one metric on one network.

    Attributes:
        verdict: "better" or "worse" where the difference's interval leaves 0 out, else "tie".
        other: The name of the other method.
        pairs: Photographs, or batches.
        mean: Of the method, and ``other_mean`` of the other.
        difference: The mean of the method's less the other's, with its interval's ends.
    """

    verdict: str
    other: str
    pairs: int
    mean: float
    other_mean: float
    difference: tuple[float, float, float]


def against_ig(
    summary: pd.DataFrame, network: str, metric: str, method: str = "pullback"
) -> Verdict | None:
    """A method against Integrated Gradients, if both were measured."""
    lines = _lines(summary, network, metric, "ig")
    if method not in lines.index or "ig" not in lines.index:
        return None
    own = lines.loc[method]
    return Verdict(
        own["verdict"], "ig", int(own["pairs"]), own["mean"], lines.loc["ig", "mean"],
        (own["difference"], own["difference_low"], own["difference_high"]),
    )  # fmt: skip


def against_best(summary: pd.DataFrame, network: str, metric: str) -> Verdict | None:
    """The default pullback against the rival that is best on the photographs that both have.

    These must be a fifth of the pullback's: methods that average over noise may have fewer, and
    Grad-CAM has no share in a box where its map is zero.
    """
    lines = _lines(summary, network, metric, "pullback")
    if "pullback" not in lines.index:
        return None
    own = lines.loc["pullback"]
    rivals = lines.loc[[find(name).kind == "rival" for name in lines.index]]
    rivals = rivals[rivals["pairs"] >= own["images"] / 5]
    if rivals.empty:
        return None
    ascending = METRICS[metric].better == "lower"
    best = rivals.sort_values("difference", ascending=ascending, kind="stable").iloc[0]
    difference = (-best["difference"], -best["difference_high"], -best["difference_low"])
    return Verdict(
        _OPPOSITE[best["verdict"]], str(best.name), int(best["pairs"]), own["mean"], best["mean"],
        difference,
    )  # fmt: skip


def clearly_better(summary: pd.DataFrame, network: str, metric: str) -> list[str]:
    """All rivals and controls that are clearly better than the default pullback, the best first."""
    lines = _lines(summary, network, metric, "pullback")
    lines = lines[lines["verdict"] == "better"]
    lines = lines.loc[[find(name).kind != "pullback" for name in lines.index]]
    ascending = METRICS[metric].better == "lower"
    return list(lines.sort_values("mean", ascending=ascending, kind="stable").index)


def measured(summary: pd.DataFrame, network: str, metric: str) -> bool:
    """Whether the default pullback was measured by this metric on this network."""
    return mean(summary, network, metric, "pullback") is not None


def mean(summary: pd.DataFrame, network: str, metric: str, method: str) -> float | None:
    """The mean of a method, if it was measured."""
    lines = _lines(summary, network, metric, "ig")
    return float(lines.loc[method, "mean"]) if method in lines.index else None


def _lines(summary: pd.DataFrame, network: str, metric: str, reference: str) -> pd.DataFrame:
    s = summary
    same = (s["network"] == network) & (s["metric"] == metric) & (s["reference"] == reference)
    return s[same].set_index("method")
