"""Temperatures in units of each gate's own inputs."""

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

    over all dimensions but the batch, for each example n and each call of each gate: nothing is
    calibrated or stored, and a batch of n examples gives the same as n batches of one.

    For a normally distributed input of mean 0, the two are the same. Where few gates of a layer are
    open, its mean output is small compared with its spread: many nearly closed gates then stay
    nearly closed, and together do not outweigh the few that are open. Max pools and attention
    compare their inputs with each other, not with 0, and always use the standard deviation.

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

    def of(
        self,
        z: Tensor,
        batch: int | None = None,
        *,
        compared: bool = False,
        spare: Tensor | None = None,
    ) -> float | Tensor:
        """The temperature for an input z of shape (N, ...); a number for one example on the CPU.

        Where there is no spread, or none that is finite, the temperature is 0: the gate is hard.

        Args:
            z: What the gate got.
            batch: The number of examples N, where it is known. Then z may also be (T, N, C), or
                (N k, ...) with k rows for each example in turn, such as windows or heads; what
                could be either is taken as (N, ...), else as (T, N, C), else as (N k, ...). Where
                it is unknown, or none of these, the first dimension is the batch's.
            compared: Whether what it got is compared with each other, and not with 0.
            spare: Memory of z's shape and type that may be written to.
        """
        if self.unit == "output" and not compared:
            z = z.detach()
            positive = z.clamp_min(0) if spare is None else torch.clamp_min(z, 0, out=spare)
            return self.of_output(positive, batch)
        given = z.detach()
        z = given.to(_wide(given))
        rows, dims = _examples(z, batch)
        if not dims:
            return 0.0
        mean = rows.mean(dims, keepdim=True)
        number = math.prod(rows.shape[dim] for dim in dims)
        # In two steps, which takes a third of `Tensor.std`.
        away = torch.sub(rows, mean, out=spare if rows is given else None)
        away = torch.linalg.vector_norm(away, dim=dims, keepdim=True)
        like = None if 0 in dims else z
        return _scaled(away / math.sqrt(number), self.scale, mean, like=like)

    def early(self, output: Tensor, batch: int | None = None) -> float | Tensor | Spread:
        """The temperature of what gives max(z, 0), as far as its output tells.

        The output was just written, and need not be made anew from z.
        """
        return self.of_output(output, batch) if self.unit == "output" else self

    def of_output(self, output: Tensor, batch: int | None = None) -> float | Tensor:
        """The same in the unit "output", for max(z, 0) in place of z."""
        output = output.detach()
        rows, dims = _examples(output, batch)
        if not dims:
            return 0.0
        # Sums of what is not negative lose nothing to each other.
        mean = rows.mean(dims, keepdim=True, dtype=_wide(output))
        scale = self.scale * math.sqrt(2 * math.pi)
        return _scaled(mean, scale, like=None if 0 in dims else output)

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
            wide = logits.detach().to(_wide(logits))
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
        return _scaled(deviation, self.scale, mean, like=logits)


# Networks mask logits by -inf, by the least number of their type, or by -1e9 or -1e4 added.
_MASKED = -9e3


def _rows(z: Tensor, batch: int | None) -> Tensor:
    """One row for each example: of (N k, ...) it is (N, k, ...)."""
    if batch == 1:
        return z[None]
    if not batch or z.shape[0] == batch or z.shape[0] % batch:
        return z
    return z.reshape(batch, -1, *z.shape[1:])


def _examples(z: Tensor, batch: int | None) -> tuple[Tensor, list[int]]:
    """Z with the dimensions over which it is one example's; none if there are no two numbers."""
    if z.numel() < 2:
        return z, []
    if z.dim() == 3 and batch == z.shape[1] and batch not in (1, z.shape[0]):
        return z, [0, 2]
    rows = _rows(z, batch)
    return rows, list(range(1, rows.dim()))


def _scaled(
    deviation: Tensor, scale: float, mean: Tensor | None = None, *, like: Tensor | None = None
) -> float | Tensor:
    """A deviation to scale, where there is one; ``like`` has k rows for each of them.

    What is within the rounding of the mean is none.
    """
    if deviation.numel() == 1 and deviation.device.type == "cpu" and not is_watched():
        number = deviation.item()
        least = 0.0 if mean is None else 8 * torch.finfo(mean.dtype).eps * abs(mean.item())
        return (deviation * scale).item() if least < number < math.inf else 0.0
    if mean is not None:
        rounding = 8 * torch.finfo(mean.dtype).eps * mean.abs()
        deviation = deviation.masked_fill(deviation <= rounding, 0.0)
    found = deviation.nan_to_num(0.0, 0.0)
    found = found * scale if scale < math.inf else found.masked_fill(found > 0, math.inf)
    if like is None:
        return found
    if found.numel() == 1:
        return found.reshape([1] * like.dim())
    found = found.flatten().repeat_interleave(len(like) // len(found))
    return found.reshape(-1, *[1] * (like.dim() - 1))


def _wide(z: Tensor) -> torch.dtype:
    return torch.promote_types(z.dtype, torch.float32)


Temperature = float | Tensor | Spread
