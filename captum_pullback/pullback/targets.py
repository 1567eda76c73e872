"""Captum's targets, in each of their forms, as indices of each example."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["indices"]


def indices(target: Any, output: Tensor) -> Tensor | None:
    """Captum's targets as indices of each example: shape (N, D) for an output of D + 1 dimensions.

    None stays None.
    """
    if target is None:
        return None
    if isinstance(target, Tensor):
        target = target.tolist()
    count = len(output)
    rows = target if isinstance(target, list) else [target] * count
    if len(rows) == 1:
        rows = rows * count
    return torch.tensor(rows, device=output.device).reshape(count, -1)
