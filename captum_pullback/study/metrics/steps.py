"""Features in steps, in the order of their attributions."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["at_step"]


def at_step(values: Tensor, features_in_step: int) -> Tensor:
    """The step, from 0, in which each feature's turn comes: the largest values first.

    Args:
        values: (..., F); equal ones keep their order.
        features_in_step: How many features are in a step; the last step has the rest.

    Returns:
        Whole numbers (..., F).
    """
    count = values.shape[-1]
    if not 1 <= features_in_step <= count:
        raise ValueError(
            f"features_in_step must be from 1 to the {count} features, not {features_in_step}"
        )
    order = values.argsort(dim=-1, descending=True, stable=True)
    turns = (torch.arange(count, device=values.device) // features_in_step).expand(order.shape)
    return torch.empty_like(order).scatter_(-1, order, turns)
