r"""What the backward pass of a soft max pool is: tensors only, no modules.

Max pooling gates too: of each window one entry passes and the others do not. Softened at
temperature :math:`T` (arXiv 2507.22832), with :math:`w = \mathrm{softmax}(x / T)` over the window
and :math:`s = \sum_j w_j x_j`, the entry :math:`j` receives

.. math::
    g \, w_j \, \bigl(1 + (x_j - s) / T\bigr),

the derivative of :math:`s`. Padding is no entry of any window. Forward passes are always computed
by the original operation, to the bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .gates import SMALLEST_TEMPERATURE, Temperature, check_mark, mark, split

__all__ = ["AdaptiveWindows", "Windows", "soft_max_pool"]

# Where one tap of every window lies: an index into the input and, of the same shape, one into the
# output. Slices where windows are regular, so that nothing is copied.
Index = tuple[Any, ...]
Taps = list[tuple[Any, Any]]


@dataclass(frozen=True)
class Windows:
    """Regular pooling windows; one entry per spatial dimension, as in ``torch.nn.MaxPool2d``."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def taps(self, x: Tensor, y: Tensor) -> Iterator[tuple[Index, Index]]:
        """For each offset in the window: where it reads x, and which entries of y it feeds."""
        sizes, outputs = x.shape[-len(self.kernel) :], y.shape[-len(self.kernel) :]
        per_axis = map(self._taps_along, range(len(self.kernel)), sizes, outputs)
        return _product(list(per_axis))

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

    def taps(self, x: Tensor, y: Tensor) -> Iterator[tuple[Index, Index]]:
        """For each offset in the window: where it reads x, and which entries of y it feeds."""
        sizes, outputs = x.shape[-self.dimensions :], y.shape[-self.dimensions :]
        if all(size % output == 0 for size, output in zip(sizes, outputs, strict=True)):
            kernel = tuple(size // output for size, output in zip(sizes, outputs, strict=True))
            still = (0,) * self.dimensions
            return Windows(kernel, kernel, still, (1,) * self.dimensions).taps(x, y)
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


class _SoftMaxPool(Function):
    @staticmethod
    def forward(
        x: Tensor,
        temperature_tensor: Tensor | None,
        operation: Callable[[Tensor], Any],
        windows: Windows | AdaptiveWindows,
        temperature: float,
    ) -> Any:
        return operation(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, temperature_tensor, _, ctx.windows, ctx.temperature = inputs
        if isinstance(output, tuple):
            output, indices = output
            ctx.mark_non_differentiable(indices)
        ctx.save_for_backward(x, output, temperature_tensor, mark(x))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, y, temperature, token = ctx.saved_tensors
        check_mark(token)
        if temperature is None:
            rate = 1.0 / max(ctx.temperature, SMALLEST_TEMPERATURE)
        else:
            rate = temperature.clamp_min(SMALLEST_TEMPERATURE).reciprocal().expand(y.shape)
        return _pull_back(grads[0], x, y, ctx.windows, rate), None, None, None, None


def _pull_back(
    grad: Tensor, x: Tensor, y: Tensor, windows: Windows | AdaptiveWindows, rate: Temperature
) -> Tensor:
    """The soft gradient, in two walks over the windows' taps; rate is 1 / T."""
    wide = torch.promote_types(x.dtype, torch.float32)
    x, y, dtype, grad = x.to(wide), y.to(wide), grad.dtype, grad.to(wide)
    taps = list(windows.taps(x, y))

    def excess(reads: Index, feeds: Index) -> tuple[Tensor, Tensor]:
        # Relative to the window's maximum, so that exp() is at most 1 and never overflows.
        below = x[reads] - y[feeds]
        return below, torch.exp(below * (rate[feeds] if isinstance(rate, Tensor) else rate))

    total, moment = torch.zeros_like(y), torch.zeros_like(y)
    for reads, feeds in taps:
        below, weight = excess(reads, feeds)
        total[feeds] += weight
        moment[feeds] += weight * below
    # w_j (1 + (x_j - s) / T) g = weight_j (constant + slope * below_j)
    share = grad / total
    slope = share * rate
    constant = share - slope * (moment / total)
    pulled = grad.new_zeros(x.shape)
    for reads, feeds in taps:
        below, weight = excess(reads, feeds)
        pulled[reads] += weight * (constant[feeds] + slope[feeds] * below)
    return pulled.to(dtype)


def soft_max_pool(
    operation: Callable[[Tensor], Any],
    x: Tensor,
    windows: Windows | AdaptiveWindows,
    temperature: Temperature,
) -> Any:
    """Run a max pool whose backward pass is soft.

    Args:
        operation: The original operation, of x alone; what it returns (the maxima, or maxima and
            indices) is returned to the bit.
        x: Input of shape (N, C, spatial...) or (C, spatial...); the gate is computed in float32
            at least.
        windows: Where the windows lie.
        temperature: In units of x, above 0, to inf. A tensor broadcasts against the output.
    """
    number, tensor = split(temperature)
    return _SoftMaxPool.apply(x, tensor, operation, windows, number)
