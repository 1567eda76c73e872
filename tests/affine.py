"""What an affine map gives, and how near to it is near enough."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

EXACT = 1e-10


def applied(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """W x + b for each example; the bias has the shape of the result."""
    rows = bias.flatten(1).shape[1]
    products = weight.reshape(len(x), rows, -1) @ x.reshape(len(x), -1, 1)
    return products.squeeze(-1).view_as(bias) + bias


def assert_close(actual: Any, expected: Any, scale: float | None = None) -> None:
    """To 1e-10 of the largest expected entry, or of a scale that is given."""
    scale = float(expected.abs().max()) if scale is None else scale
    torch.testing.assert_close(actual, expected, rtol=0, atol=EXACT * scale)
