"""Our numbers beside the published ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.intervals import resampled
from benchmarks.markdown import table
from benchmarks.published.protocol import METHODS, METRICS, PUBLISHED


def rows(
    model: str, methods: list[str], scores: dict[tuple[str, str], list[float]]
) -> Iterator[dict[str, Any]]:
    """For each metric and method its mean, the interval, and what was published."""
    known = PUBLISHED.get(model, {})
    for metric in METRICS:
        for method in methods:
            values = np.array(scores.get((method, metric), []))
            values = values[np.isfinite(values)]
            if not len(values):
                continue
            low, high = resampled(np.mean, values)
            published = known.get(method, {}).get(metric)
            yield {
                "metric": metric,
                "method": method,
                "count": len(values),
                "mean": float(values.mean()),
                "low": low,
                "high": high,
                "published": published,
                "verdict": verdict(low, high, published),
            }


def verdict(low: float, high: float, published: float | None) -> str:
    """Whether the published value is in our interval, to the digits in which it was published."""
    if published is None or math.isnan(low):
        return ""
    half = 0.005 if abs(published) < 10 else 0.05 if abs(published) < 100 else 0.5
    if published + half < low:
        return "ours is higher"
    return "ours is lower" if published - half > high else "agrees"


def report(result: dict[str, Any]) -> str:
    """The comparison, for people: a table in Markdown, and what was read into the paper."""
    lines = [
        (
            METRICS[row["metric"]].title,
            METRICS[row["metric"]].better,
            METHODS[row["method"]].title,
            f"{row['mean']:.3g} [{row['low']:.3g}, {row['high']:.3g}]",
            "" if row["published"] is None else f"{row['published']:g}",
            row["verdict"],
        )
        for row in result["rows"]
    ]
    shown = table(("metric", "better", "method", "ours", "published", ""), lines)
    head = (
        f"{result['model']}, {result['weights']}, {result['images']} photographs, "
        f"{result['mosaics']} mosaics; means with 95 % bootstrap intervals"
    )
    parts = [head, "", shown]
    parts += [f"{METHODS[name].title}: not here, {why}" for name, why in result["refused"].items()]
    if not PUBLISHED.get(result["model"]):
        parts += [f"of {result['model']} nothing was published"]
    parts += ["", "How the paper was read where it leaves something open:"]
    parts += [f"- {each}" for each in result["read"]]
    return "\n".join(parts)
