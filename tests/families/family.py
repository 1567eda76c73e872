"""What a network is to the tests."""

from __future__ import annotations

from typing import NamedTuple

from random_weights import pictures, randomize
from torch import Tensor, nn


class Family(NamedTuple):
    """A network, two inputs, and how exactly it follows its own equations in float64."""

    model: nn.Module
    x: Tensor
    tolerance: float = 1e-10


def of_pictures(model: nn.Module, size: int, spread: float = 1.0) -> Family:
    """A network of square pictures; BatchNorm takes its statistics from some of them."""
    x = pictures(6, 3, size, size)
    return Family(randomize(model, x, spread=spread), x[:2])
