"""Where an ascent may go: a ball about its start, and bounds; kept to the last digit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from captum_pullback.engine.models import wide_type

__all__ = ["Bounds", "Layout", "Region", "check_bounds", "norms", "unit"]

Bound: TypeAlias = float | Sequence[float] | Tensor
Bounds: TypeAlias = tuple[Bound, Bound]


def norms(rows: Tensor) -> Tensor:
    """The L2 norm of each row of a matrix, without overflow or underflow of the squares."""
    scaled, power = _scaled(rows)
    length: Tensor = torch.linalg.vector_norm(scaled, dim=1) * power[:, 0]
    return length


def unit(rows: Tensor) -> Tensor:
    """Each row of a matrix at length 1; a row of zeros stays one."""
    scaled, _ = _scaled(rows)
    length = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return scaled / torch.where(length > 0, length, torch.ones_like(length))


def _scaled(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows with a peak in [1, 2), and the powers of two, which cost no digit, they are short of."""
    peak = rows.abs().amax(dim=1, keepdim=True)
    mantissa, _ = torch.frexp(peak)  # in [1/2, 1)
    power = torch.where(peak > 0, peak / (2 * mantissa), torch.ones_like(peak))
    return rows / power, power


class Layout:
    """How inputs become a matrix with a row for each example, and back.

    The matrix is of float64, which holds every narrower number exactly (MPS, which has no
    float64, makes do with float32).

    Raises:
        TypeError: Something that is not a tensor of floating point.
        ValueError: Parts of different or of no length, empty examples, or values that are not
            finite.
    """

    def __init__(self, inputs: Tensor | tuple[Tensor, ...]) -> None:
        self.is_tuple = isinstance(inputs, tuple)
        parts = self._parts(inputs)
        for number, part in enumerate(parts):
            which = f"part {number} of inputs" if self.is_tuple else "inputs"
            if not isinstance(part, Tensor):
                raise TypeError(f"{which} must be a tensor, not {type(part).__name__}")
            if not part.is_floating_point():
                raise TypeError(f"{which} must be floating point, not {part.dtype}")
            if part.dim() == 0 or part.numel() == 0:
                raise ValueError(f"{which} must have shape (N, ...), not {tuple(part.shape)}")
            if not bool(torch.isfinite(part).all()):
                raise ValueError(f"{which} must be finite, but has values that are NaN or infinite")
        if len({len(part) for part in parts}) != 1:
            raise ValueError(f"parts of inputs have {[len(part) for part in parts]} examples")
        self.shapes = [part.shape for part in parts]
        self.dtypes = [part.dtype for part in parts]
        self._widths = [part[0].numel() for part in parts]
        self._wide = wide_type(parts[0].device)
        #: The type that a user's own arithmetic on the parts ends in.
        self.narrow = self.dtypes[0]
        for dtype in self.dtypes:
            self.narrow = torch.promote_types(self.narrow, dtype)

    @staticmethod
    def _parts(inputs: Any) -> tuple[Tensor, ...]:
        return inputs if isinstance(inputs, tuple) else (inputs,)

    def flatten(self, inputs: Tensor | tuple[Tensor, ...]) -> Tensor:
        """The examples as rows, (N, D)."""
        rows = [part.detach().to(self._wide) for part in self._parts(inputs)]
        return torch.cat([part.reshape(len(part), -1) for part in rows], dim=1)

    def unflatten(self, rows: Tensor) -> Any:
        """The inputs that the rows stand for: contiguous, and rounded to the inputs' types."""
        pieces = torch.split(rows, self._widths, dim=1)
        parts = tuple(
            piece.to(dtype).reshape(shape)
            for piece, dtype, shape in zip(pieces, self.dtypes, self.shapes, strict=True)
        )
        return parts if self.is_tuple else parts[0]

    def round(self, rows: Tensor) -> Tensor:
        """The rows as they are after `unflatten`."""
        return self.flatten(self.unflatten(rows))

    def bound(self, value: Bound, upper: bool) -> Tensor:
        """One bound as rows: the last number of each type that does not exceed it."""
        rows = []
        for shape, dtype in zip(self.shapes, self.dtypes, strict=True):
            bound = torch.as_tensor(value, dtype=self._wide)
            if bound.dim() == 1 and len(bound) > 1 and len(shape) > 1:
                bound = bound.view(-1, *[1] * (len(shape) - 2))
            try:
                bound = bound.expand(shape)
            except RuntimeError as error:
                raise ValueError(
                    f"bounds of shape {tuple(torch.as_tensor(value).shape)} do not fit inputs of "
                    f"shape {tuple(shape)}: give a number, or one for each channel (dimension 1)"
                ) from error
            rounded = bound.to(dtype)
            beyond = rounded > bound if upper else rounded < bound
            inward = torch.full_like(rounded, -math.inf if upper else math.inf)
            rows.append(torch.where(beyond, torch.nextafter(rounded, inward), rounded))
        return torch.cat([part.to(self._wide).reshape(len(part), -1) for part in rows], dim=1)


class Region:
    """The ball about ``start``, a matrix of rows, and the bounds.

    Args:
        layout: Of the inputs.
        start: The inputs, (N, D).
        radius: Of each example's ball, (N,).
        bounds: See `PullbackAscent`.
    """

    def __init__(
        self, layout: Layout, start: Tensor, radius: Tensor, bounds: Bounds | None
    ) -> None:
        self.layout, self.start, self.radius = layout, start, radius
        self.low = self.high = None
        if bounds is not None:
            self.low, self.high = (
                layout.bound(value, upper).to(start.device)
                for value, upper in zip(bounds, (False, True), strict=True)
            )
        # An example that is out of bounds by more than its radius cannot be in both.
        self._can_be_in_both = ~self._is_beyond(layout.round(self._bounded(start)))

    def project(self, perturbation: Tensor) -> tuple[Tensor, Tensor]:
        """The perturbation within the region, and the point to which it leads, as rounded.

        The ball comes first and the bounds second, which draw towards a start that is within
        them, and so never out of the ball. What rounding then adds to the length is taken back by
        shortening the perturbation until the rounded point itself is in the ball.
        """
        length = norms(perturbation)
        scale = torch.where(length > self.radius, self.radius / length, torch.ones_like(length))
        perturbation = perturbation * scale.unsqueeze(1)
        margin = torch.finfo(self.layout.narrow).eps / 2
        while True:
            within = self._bounded(self.start + perturbation)
            point = self.layout.round(within)
            beyond = self._is_beyond(point) & self._can_be_in_both
            if not bool(beyond.any()):
                return within - self.start, point
            ratio = (self.radius / norms(point - self.start)).clamp(max=1) * max(0.0, 1 - margin)
            perturbation = perturbation * torch.where(beyond, ratio, 1.0).unsqueeze(1)
            margin *= 2

    def _bounded(self, rows: Tensor) -> Tensor:
        return rows if self.low is None else torch.clamp(rows, self.low, self.high)

    def _is_beyond(self, point: Tensor) -> Tensor:
        return norms(point - self.start) > self.radius


def check_bounds(bounds: Any) -> None:
    """Raise if these are no bounds, as far as one can tell without the inputs."""
    if bounds is None:
        return
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        raise TypeError("bounds must be a pair (lowest, highest), of numbers or of tensors")
    try:
        low, high = (torch.as_tensor(value, dtype=torch.float64).cpu() for value in bounds)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"bounds must be numbers, or tensors of them: {error}") from error
    try:
        ordered = bool((low <= high).all())  # false for NaN as well
    except RuntimeError as error:
        raise ValueError(
            f"bounds of shapes {tuple(low.shape)} and {tuple(high.shape)} do not fit each other"
        ) from error
    if not ordered:
        raise ValueError("bounds must be (lowest, highest), the first nowhere above the second")
