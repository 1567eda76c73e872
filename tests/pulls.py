"""The two ways to take a pullback, which tests of faults hold against the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from reference import gradient
from torch import Tensor, nn

from captum_pullback import EXCITATION, ExcitationPullback, soften

Function = Callable[[Tensor], Tensor]
Way = Callable[[Function, Tensor, Any], Tensor]

# What is softened is the ReLU family and max pools; all else keeps its derivative.
EXCITATION_ONLY: dict[str, Any] = {"rules": EXCITATION}


def in_a_block(function: Function, x: Tensor, temperature: Any) -> Tensor:
    """The gradient of the sum of the function's values, taken in a `soften` block."""
    leaf = x.detach().clone().requires_grad_()
    model = function if isinstance(function, nn.Module) else nn.Identity()
    with soften(model, temperature, **EXCITATION_ONLY):
        return gradient(function(leaf).sum(), leaf)


def attributed(function: Function, x: Tensor, temperature: Any) -> Tensor:
    """The same from `ExcitationPullback`."""

    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = function if isinstance(function, nn.Module) else None

        def forward(self, x: Tensor) -> Tensor:
            return function(x).reshape(len(x), -1).sum(1)

    if isinstance(temperature, dict):
        temperature = {f"inner.{name}" if name else "": t for name, t in temperature.items()}
    return ExcitationPullback(Summed(), temperature, **EXCITATION_ONLY).attribute(x)


WAYS: dict[str, Way] = {"soften": in_a_block, "ExcitationPullback": attributed}


def by_reference(function: Function, x: Tensor) -> Tensor:
    """The plain gradient of a function that is written with the reference's soft operations."""
    leaf = x.detach().clone().requires_grad_()
    return gradient(function(leaf).sum(), leaf)


def sigma(z: Tensor, temperature: float) -> Tensor:
    """The logistic function of z / T, written out."""
    return 1 / (1 + torch.exp(-z / temperature))
