"""Whether an attribution lies where the object is."""

from __future__ import annotations

import math

from torch import Tensor

__all__ = ["box_share", "pointing_game"]


def box_share(attribution: Tensor, inside: Tensor) -> float:
    """Share of a map's positive part, (C, H, W), in a mask (H, W); NaN if nothing is positive."""
    positive = attribution.double().sum(0).clamp(min=0).cpu()
    total = float(positive.sum())
    return float(positive[inside].sum()) / total if total > 0 else math.nan


def pointing_game(attribution: Tensor, inside: Tensor) -> float:
    """1 if the greatest value of a map (C, H, W) lies in a mask (H, W), else 0."""
    return float(inside.flatten()[int(attribution.double().sum(0).cpu().argmax())])
