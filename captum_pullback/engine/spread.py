"""A temperature in units of each gate's own spread."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

__all__ = ["Spread", "Temperature"]


@dataclass(frozen=True)
class Spread:
    r"""A temperature in units of the standard deviation of each gate's input.

    .. math::
        T_n = c \; \mathrm{std}(z_n)

    over all dimensions but the batch's, for each example n and each call of each gate: nothing
    is calibrated and nothing kept, and a batch of n examples is n batches of one.

    Args:
        scale: c, from 0 (hard) to inf.

    Raises:
        TypeError: The scale is not a number.
        ValueError: It is negative or NaN.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        given: object = self.scale
        if isinstance(given, bool) or not isinstance(given, Real):
            raise TypeError(f"Spread takes a number, not {type(given).__name__}")
        scale = float(given)
        if math.isnan(scale) or scale < 0:
            raise ValueError(f"Spread({scale}): give a number from 0 (hard gates) to inf")
        object.__setattr__(self, "scale", scale)

    def of(self, z: Tensor, batch: int | None = None) -> float | Tensor:
        """The temperature for an input z of shape (N, ...); a number where N is 1.

        Where there is no spread, or none that is finite, the temperature is 0: the gate is hard.

        Args:
            z: What the gate got.
            batch: The number of examples, where it is known: the first or second dimension, or a
                divisor of the first, is the batch's. Else it is the first.
        """
        z = z.detach()
        if z.dim() < 2:
            dims: list[int] = []
        elif batch is None or z.shape[0] % batch == 0 or z.shape[1] != batch:
            dims = list(range(1, z.dim()))
        else:
            dims = [dim for dim in range(z.dim()) if dim != 1]
        wide = z.to(torch.promote_types(z.dtype, torch.float32))
        if not dims:
            return torch.zeros_like(wide)
        deviation = wide.std(dims, correction=0, keepdim=True)
        found = torch.where(deviation.isfinite(), deviation * self.scale, 0.0)
        found = torch.where(deviation > 0, found, 0.0)
        if found.numel() == 1 and z.device.type == "cpu" and not torch.compiler.is_compiling():
            return float(found)
        return found


Temperature = float | Tensor | Spread
