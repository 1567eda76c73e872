"""Whether a map points to where the object is."""

from __future__ import annotations

import math

from torch import Tensor

__all__ = ["box_share", "pointing_game"]


def box_share(attribution: Tensor, inside: Tensor) -> float:
    """The share of a map's positive part, (C, H, W), within a mask (H, W); NaN if there is none."""
    positive = attribution.double().sum(0).clamp(min=0).cpu()
    total = float(positive.sum())
    return float(positive[inside].sum()) / total if total > 0 else math.nan


def pointing_game(attribution: Tensor, inside: Tensor) -> float:
    """1 if the largest value of a map (C, H, W) lies within a mask (H, W), else 0."""
    return float(inside.flatten()[int(attribution.double().sum(0).cpu().argmax())])
