"""Where the windows of a pool lie: which entries of its input feed which entries of its output."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["AdaptiveWindows", "Index", "Taps", "Windows", "per_axis"]

# Where one tap of every window lies: an index into the input and, of the same shape, one into the
# output. Slices where windows are regular, so that nothing is copied.
Index = tuple[Any, ...]
Taps = list[tuple[Any, Any]]


def per_axis(value: int | Sequence[int], dimensions: int) -> tuple[int, ...]:
    """A number for each spatial dimension, from one for all or one for each."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dimensions if len(values) == 1 else values


@dataclass(frozen=True)
class Windows:
    """Regular pooling windows; one entry per spatial dimension, as in ``torch.nn.MaxPool2d``."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def regular(self, x: Tensor, y: Tensor) -> Windows:
        """These windows, in this form if there is one."""
        return self

    def taps(self, x: Tensor, y: Tensor) -> Iterator[tuple[Index, Index]]:
        """For each offset in the window: where it reads x, and which entries of y it feeds."""
        return _product(self.per_axis(x, y))

    def per_axis(self, x: Tensor, y: Tensor) -> list[Taps]:
        """The taps along each spatial dimension."""
        sizes, outputs = x.shape[-len(self.kernel) :], y.shape[-len(self.kernel) :]
        return list(map(self._taps_along, range(len(self.kernel)), sizes, outputs))

    def _taps_along(self, axis: int, size: int, outputs: int) -> Taps:
        stride, taps = self.stride[axis], []
        for tap in range(self.kernel[axis]):
            # Window o reads position o * stride + offset, which must lie inside the input:
            # clipping the windows leaves padding out without ever building it.
            offset = tap * self.dilation[axis] - self.padding[axis]
            first = max(0, -(offset // stride))
            end = min(outputs, (size - 1 - offset) // stride + 1)
            if first < end:
                start = first * stride + offset
                stop = start + (end - first - 1) * stride + 1
                taps.append((slice(start, stop, stride), slice(first, end)))
        return taps


@dataclass(frozen=True)
class AdaptiveWindows:
    """Windows of adaptive pooling: window o spans floor(o n / m) to ceil((o + 1) n / m)."""

    dimensions: int

    def regular(self, x: Tensor, y: Tensor) -> Windows | AdaptiveWindows:
        """These windows, as regular ones where all have one size."""
        sizes, outputs = x.shape[-self.dimensions :], y.shape[-self.dimensions :]
        if any(size % output for size, output in zip(sizes, outputs, strict=True)):
            return self
        kernel = tuple(size // output for size, output in zip(sizes, outputs, strict=True))
        return Windows(kernel, kernel, (0,) * self.dimensions, (1,) * self.dimensions)

    def taps(self, x: Tensor, y: Tensor) -> Iterator[tuple[Index, Index]]:
        """For each offset in the window: where it reads x, and which entries of y it feeds."""
        sizes, outputs = x.shape[-self.dimensions :], y.shape[-self.dimensions :]
        per_axis = []
        for axis, (size, output) in enumerate(zip(sizes, outputs, strict=True)):
            shape = [-1 if axis == other else 1 for other in range(self.dimensions)]
            per_axis.append(
                [
                    tuple(torch.tensor(side, device=x.device).view(shape) for side in tap)
                    for tap in self._taps_along(size, output)
                ]
            )
        return _product(per_axis)

    @staticmethod
    def _taps_along(size: int, outputs: int) -> list[tuple[list[int], list[int]]]:
        taps: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
        starts: list[int] = []
        for output in range(outputs):
            start, end = output * size // outputs, -(-(output + 1) * size // outputs)
            # No position twice in one tap, or adding into it would lose all but one share.
            repeat = starts.count(start)
            starts.append(start)
            for tap in range(end - start):
                reads, feeds = taps.setdefault((tap, repeat), ([], []))
                reads.append(start + tap)
                feeds.append(output)
        return list(taps.values())


def _product(per_axis: list[Any]) -> Iterator[tuple[Index, Index]]:
    for combination in itertools.product(*per_axis):
        reads, feeds = zip(*combination, strict=True)
        yield (..., *reads), (..., *feeds)
