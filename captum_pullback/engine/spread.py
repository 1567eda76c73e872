"""A temperature in units of each gate's own inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor

from captum_pullback.engine._torch import is_watched

__all__ = ["UNITS", "Spread", "Temperature"]

#: What a temperature may be in units of.
UNITS = ("spread", "output")


@dataclass(frozen=True)
class Spread:
    r"""A temperature in units of what each gate gets: its input's spread, or its mean output.

    .. math::
        T_n = c \; \mathrm{std}(z_n) \qquad\text{or}\qquad
        T_n = c \sqrt{2\pi} \; \mathrm{mean}(\max(z_n, 0))

    over all dimensions but the batch's, for each example n and each call of each gate: nothing
    is calibrated and nothing kept, and a batch of n examples is n batches of one.

    For a normal input of mean 0 the two are the same. Where few gates of a layer are open, its
    mean output is small beside its spread: many gates that are nearly shut then stay so, and
    together do not outweigh the few that are open. Max pools and attention compare their inputs
    with each other, not with 0, and always use the standard deviation.

    Args:
        scale: c, from 0 (hard) to inf.
        unit: "spread", the standard deviation, or "output".

    Raises:
        TypeError: The scale is not a number.
        ValueError: It is negative or NaN, or there is no such unit.
    """

    scale: float = 1.0
    unit: Literal["spread", "output"] = "spread"

    def __post_init__(self) -> None:
        given: object = self.scale
        if isinstance(given, bool) or not isinstance(given, Real):
            raise TypeError(f"Spread takes a number, not {type(given).__name__}")
        scale = float(given)
        if math.isnan(scale) or scale < 0:
            raise ValueError(f"Spread({scale}): give a number from 0 (hard gates) to inf")
        if self.unit not in UNITS:
            raise ValueError(f"unit must be 'spread' or 'output', not {self.unit!r}")
        object.__setattr__(self, "scale", scale)

    def of(self, z: Tensor, batch: int | None = None, *, compared: bool = False) -> float | Tensor:
        """The temperature for an input z of shape (N, ...); a number for one example on the CPU.

        Where there is no spread, or none that is finite, the temperature is 0: the gate is hard.

        Args:
            z: What the gate got.
            batch: The number of examples N, where it is known. Then z may also be (T, N, C), or
                (N k, ...) with k rows for each example in turn, such as windows or heads; what
                could be either is taken as (N, ...), else as (T, N, C), else as (N k, ...). Where
                it is unknown, or none of these, the first dimension is the batch's.
            compared: Whether what it got is compared with each other, and not with 0.
        """
        z = z.detach()
        if z.numel() < 2:
            return 0.0
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        measure = _mean_output if self.unit == "output" and not compared else _moments
        if z.dim() == 3 and batch == z.shape[1] and batch not in (1, z.shape[0]):
            return self._scaled(*measure(z, [0, 2]))
        rows = _rows(z, batch)
        dims = list(range(1, rows.dim()))
        if not dims:
            return 0.0
        return self._scaled(*measure(rows, dims), like=z)

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


def _mean_output(z: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
    """What is the standard deviation of a normal input of mean 0; and what is lost by rounding."""
    # Sums of what is not negative lose nothing to each other.
    found = z.clamp_min(0).mean(dims, keepdim=True) * math.sqrt(2 * math.pi)
    return found, torch.zeros_like(found)


Temperature = float | Tensor | Spread
