"""Correlation coefficients of many rows at once, in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from captum_pullback.engine.models import widened

__all__ = ["pearson", "ranks", "spearman"]


def pearson(first: Tensor, second: Tensor) -> Tensor:
    r"""Pearson's correlation along the last dimension; the others are broadcast.

    .. math::
        r = \frac{\sum_i (a_i - \bar a)(b_i - \bar b)}
                 {\sqrt{\sum_i (a_i - \bar a)^2 \sum_i (b_i - \bar b)^2}}

    Returns:
        A tensor without the last dimension, with values within [-1, 1]; NaN where all values of a
        row are the same, since the correlation is not defined there.
    """
    one, other = _centered(first), _centered(second)
    found: Tensor = (one * other).sum(-1).clamp(-1, 1)
    return found


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's rank correlation: `pearson` of the `ranks`."""
    return pearson(ranks(first), ranks(second))


def ranks(values: Tensor) -> Tensor:
    """The rank of each value along the last dimension, from 1; equal values share their mean."""
    ordered, order = values.detach().sort(dim=-1)
    places = torch.arange(1, values.shape[-1] + 1, device=values.device).expand(values.shape)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    group = new.cumsum(-1) - 1
    wide = widened(places)
    sums = torch.zeros_like(wide).scatter_add_(-1, group, wide)
    counts = torch.zeros_like(wide).scatter_add_(-1, group, torch.ones_like(wide))
    shared = (sums / counts.clamp(min=1)).gather(-1, group)
    return torch.empty_like(shared).scatter_(-1, order, shared)


def _centered(values: Tensor) -> Tensor:
    """Rows scaled to mean 0 and length 1; NaN for constant rows."""
    wide = widened(values)
    constant = (wide == wide[..., :1]).all(-1, keepdim=True)
    size = wide.abs().amax(-1, keepdim=True)  # so that no square is too small or too large
    wide = wide / torch.where(size > 0, size, 1.0)
    wide = wide - wide.mean(-1, keepdim=True)
    length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    return torch.where(constant, math.nan, wide / torch.where(constant, 1.0, length))
