"""Spreads of gates' inputs and the temperatures they make, by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from reference import max_pool2d, relative_error, relu
from torch import Tensor

from captum_pullback import Spread

C = 0.8


def deviation(z: Tensor) -> float:
    """The standard deviation of one example, written out."""
    values = z.detach().double().flatten().tolist()
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))


def mean_output(z: Tensor) -> float:
    """The mean of what a ReLU lets through of one example, written out."""
    values = z.detach().double().flatten().tolist()
    return math.fsum(max(value, 0.0) for value in values) / len(values)


def at(temperature: float | Spread, z: Tensor, *, compared: bool = False) -> float:
    """The temperature of one example; of a pool, its inputs are compared with each other."""
    if not isinstance(temperature, Spread):
        return temperature
    if temperature.unit == "output" and not compared:
        return temperature.scale * math.sqrt(2 * math.pi) * mean_output(z)
    return temperature.scale * deviation(z)


def phi(z: Tensor) -> Tensor:
    return (1 + torch.erf(z / math.sqrt(2))) / 2


def of_each(
    function: Callable[[Tensor, float], Tensor], temperature: float | Spread
) -> Callable[[Tensor], Tensor]:
    """A soft operation for one example and a number, for a batch and each example's spread."""
    compared = function is SOFT["pool"]
    return lambda z: torch.cat(
        [function(part, at(temperature, part, compared=compared)) for part in z.split(1)]
    )


# The soft operations, independent of the package: forward values are what the gates give.
SOFT: dict[str, Callable[[Tensor, float], Tensor]] = {
    "relu": relu,
    "leaky": lambda z, t: 0.1 * z + 0.9 * relu(z, t),
    "pool": lambda z, t: max_pool2d(z, t, 2, 2),
    "gelu": lambda z, t: z * phi(z / math.sqrt(1 + t * t)).detach() + kept(z, F.gelu, phi, t),
    "silu": lambda z, t: (
        z * torch.sigmoid(z / math.sqrt(1 + t * t)).detach() + kept(z, F.silu, torch.sigmoid, t)
    ),
}


def kept(z: Tensor, whole: Any, gate: Any, t: float) -> Tensor:
    """What the value of an operation lacks where its gate is softened."""
    z = z.detach()
    return whole(z) - z * gate(z / math.sqrt(1 + t * t))


HARD: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky": lambda z: F.leaky_relu(z, 0.1),
    "pool": lambda z: F.max_pool2d(z, 2),
    "gelu": F.gelu,
    "silu": F.silu,
}


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-11) -> None:
    assert relative_error(found, expected) < tolerance
