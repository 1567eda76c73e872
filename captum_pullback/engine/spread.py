"""A temperature in units of each gate's own spread."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from captum_pullback.engine._torch import is_watched

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
        """The temperature for an input z of shape (N, ...); a number for one example on the CPU.

        Where there is no spread, or none that is finite, the temperature is 0: the gate is hard.

        Args:
            z: What the gate got.
            batch: The number of examples N, where it is known. Then z may also be (T, N, C), or
                (N k, ...) with k rows for each example in turn, such as windows or heads; what
                could be either is taken as (N, ...), else as (T, N, C), else as (N k, ...). Where
                it is unknown, or none of these, the first dimension is the batch's.
        """
        z = z.detach()
        if z.numel() < 2:
            return 0.0
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        if z.dim() == 3 and batch == z.shape[1] and batch not in (1, z.shape[0]):
            return self._scaled(*_moments(z, [0, 2]))
        rows = _rows(z, batch)
        dims = list(range(1, rows.dim()))
        if not dims:
            return 0.0
        return self._scaled(*_moments(rows, dims), like=z)

    def of_logits(self, pieces: Iterable[Tensor], batch: int | None = None) -> float | Tensor:
        """The same for logits (N, ..., rows, columns) of attention, less those that are masked.

        Args:
            pieces: The logits, some rows at a time.
            batch: As for `of`; the first dimension is N or N k, and there is none if it is the
                rows'.
        """
        count: Any = 0
        mean: Any = 0.0
        squares: Any = 0.0
        logits = None
        for logits in pieces:
            wide = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))
            rows = _rows(wide, 1 if wide.dim() < 3 else batch).flatten(1)
            real = ~(rows <= _MASKED)  # NaN counts
            number = real.sum(1)
            middle = torch.where(real, rows, 0).sum(1) / number.clamp_min(1)
            apart = torch.where(real, rows - middle[:, None], 0).square().sum(1)
            # Chan's formula joins the moments of two samples.
            whole = (count + number).clamp_min(1)
            shift = middle - mean
            squares = squares + apart + shift.square() * count * number / whole
            mean, count = mean + shift * number / whole, count + number
        if logits is None or not logits.numel():
            return 0.0
        deviation = (squares / count.clamp_min(1)).sqrt()
        return self._scaled(deviation, mean, like=logits)

    def _scaled(
        self, deviation: Tensor, mean: Tensor, *, like: Tensor | None = None
    ) -> float | Tensor:
        """C times the deviation, where there is one; ``like`` has k rows for each of them."""
        rounding = 8 * torch.finfo(deviation.dtype).eps * mean.abs()
        counts = (deviation > rounding) & deviation.isfinite()
        found = torch.where(counts, deviation * self.scale, 0.0)
        if found.numel() == 1:
            if found.device.type == "cpu" and not is_watched():
                return float(found)
            return found.reshape([1] * (1 if like is None else like.dim()))
        if like is None:
            return found
        found = found.flatten().repeat_interleave(len(like) // len(found))
        return found.reshape(-1, *[1] * (like.dim() - 1))


# Networks mask logits by -inf, by the least number of their type, or by -1e9 or -1e4 added.
_MASKED = -9e3


def _rows(z: Tensor, batch: int | None) -> Tensor:
    """One row for each example: of (N k, ...) it is (N, k, ...)."""
    if batch == 1:
        return z[None]
    if not batch or z.shape[0] == batch or z.shape[0] % batch:
        return z
    return z.reshape(batch, -1, *z.shape[1:])


def _moments(z: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
    """The standard deviation and the mean; in two steps, which takes a third of `Tensor.std`."""
    mean = z.mean(dims, keepdim=True)
    number = math.prod(z.shape[dim] for dim in dims)
    return torch.linalg.vector_norm(z - mean, dim=dims, keepdim=True) / math.sqrt(number), mean


Temperature = float | Tensor | Spread
