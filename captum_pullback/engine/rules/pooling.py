r"""What the backward pass of a soft max pool is: tensors only, no modules.

Max pooling gates too: of each window one entry passes and the others do not. Softened at
temperature :math:`T` (arXiv 2507.22832), with :math:`w = \mathrm{softmax}(x / T)` over the window
the entry :math:`j` receives :math:`g \, w_j` where the softmax is held (v5); or, with
:math:`s = \sum_j w_j x_j`, the derivative of :math:`s` (v1 to v4),

.. math::
    g \, w_j \, \bigl(1 + (x_j - s) / T\bigr).

Padding is no entry of any window.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_pullback.engine._torch import is_watched
from captum_pullback.engine.calls.held import Context, Held, derivative, may_write
from captum_pullback.engine.rules.steps import SMALLEST_TEMPERATURE
from captum_pullback.engine.rules.windows import AdaptiveWindows, Index, Taps, Windows
from captum_pullback.engine.spread import Spread

__all__ = ["max_pool", "values_of"]

aten = torch.ops.aten


def values_of(returned: Any) -> Any:
    """What an operation that may also return indices (a max pool, a sort) returned, less these."""
    return returned[0] if isinstance(returned, tuple) else returned


def max_pool(windows: Windows | AdaptiveWindows, *, differentiated: bool = False) -> Held:
    """A max pool over these windows, of (N, C, spatial...) or (C, spatial...).

    Args:
        windows: Where the windows lie.
        differentiated: Whether to differentiate the softmax, too; else it is held.
    """

    def pull(context: Context, grad: Tensor, x: Tensor) -> Tensor:
        if not isinstance(context.call.temperature, Spread):
            return pull_at(context, grad, x, context.temperature(x))
        # Memory for the result serves to measure the spread, too.
        into = torch.empty_like(x) if may_write(grad) and grad.dtype == x.dtype else None
        temperature = context.temperature(x, compared=True, spare=into)
        return _pull_each(context, grad, x, temperature, pull_at, into)

    def pull_at(
        context: Context,
        grad: Tensor,
        x: Tensor,
        temperature: float | Tensor,
        into: Tensor | None = None,
    ) -> Tensor:
        rate: float | Tensor
        if isinstance(temperature, Tensor):
            rate = temperature.clamp_min(SMALLEST_TEMPERATURE).reciprocal().expand(grad.shape)
        else:
            rate = 1.0 / max(temperature, SMALLEST_TEMPERATURE)
        return _pull_back(grad, x, context.operation, windows, rate, differentiated, into)

    return Held(pull, hard=True)


def _pull_each(
    context: Context,
    grad: Tensor,
    x: Tensor,
    temperature: float | Tensor,
    pull: Callable[..., Tensor],
    into: Tensor | None,
) -> Tensor:
    """The same at a temperature that was found: one example after the other, as is quickest.

    Where it is 0, the gradient is PyTorch's own, which of equal entries chooses one. The result
    may be written ``into`` memory of x's shape and strides.
    """
    if not isinstance(temperature, Tensor):
        if temperature or is_watched():
            return pull(context, grad, x, temperature, into)
        (own,) = derivative(context.call, [x], [True], grad)
        return own  # type: ignore[return-value]
    if is_watched():
        return pull(context, grad, x, temperature)
    if x.device.type == "cpu" and temperature.numel() == len(temperature) == len(x):
        values = temperature.flatten().tolist()
        places = [None] * len(x) if into is None else torch.split(into, 1)
        found = [
            _pull_each(context, g, part, value, pull, place)
            for value, g, part, place in zip(
                values, torch.split(grad, 1), torch.split(x, 1), places, strict=True
            )
        ]
        if into is None:
            return torch.cat(found)
        for place, pulled in zip(places, found, strict=True):
            if place is not None and pulled is not place:
                place.copy_(pulled)
        return into
    pulled, hard = pull(context, grad, x, temperature), temperature == 0
    if bool(hard.any()):
        (own,) = derivative(context.call, [x], [True], grad)
        pulled = torch.where(hard, own, pulled)  # type: ignore[arg-type]
    return pulled


def _pull_back(
    grad: Tensor,
    x: Tensor,
    operation: Callable[[Tensor], Any],
    windows: Windows | AdaptiveWindows,
    rate: float | Tensor,
    differentiated: bool,
    into: Tensor | None = None,
) -> Tensor:
    """The soft gradient; rate is 1 / T."""
    windows = windows.regular(x, grad)
    # Sums are written into what they have made, where their values allow it.
    if (
        isinstance(windows, Windows)
        and isinstance(rate, float)
        and not (grad.is_meta or torch.is_grad_enabled() or is_watched())
    ):
        pulled = _by_sums(grad, x, windows, rate, differentiated, into)
        if pulled is not None:
            return pulled
    wide = torch.promote_types(x.dtype, torch.float32)
    x, dtype, grad = x.to(wide), grad.dtype, grad.to(wide)
    # The formula does not depend on the maxima: they only keep exp() in range.
    maxima = values_of(operation(x.detach()))
    return _by_taps(grad, x, maxima, windows, rate, differentiated).to(dtype)


def _by_taps(
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    windows: Windows | AdaptiveWindows,
    rate: float | Tensor,
    differentiated: bool,
) -> Tensor:
    """For any windows and any values: two walks over the windows' taps."""
    taps = list(windows.taps(x, y))
    lowest = torch.finfo(x.dtype).min / 4

    def excess(reads: Index, feeds: Index) -> tuple[Tensor, Tensor]:
        # Relative to the window's maximum, so that exp() is at most 1 and never overflows; and
        # finite, so that an entry masked by -inf has a weight of 0 and not 0 * inf, and what is
        # as infinite as its window's maximum a difference of 0.
        below = (x[reads] - y[feeds]).nan_to_num(nan=0.0).clamp_min(lowest)
        return below, torch.exp(below * (rate[feeds] if isinstance(rate, Tensor) else rate))

    total, moment = torch.zeros_like(y), torch.zeros_like(y)
    for reads, feeds in taps:
        below, weight = excess(reads, feeds)
        total[feeds] += weight
        if differentiated:
            moment[feeds] += weight * below
    share = grad / total
    pulled = grad.new_zeros(x.shape)
    if not differentiated:
        for reads, feeds in taps:
            pulled[reads] += excess(reads, feeds)[1] * share[feeds]
        return pulled
    # w_j (1 + (x_j - s) / T) g = weight_j (constant + slope * below_j)
    slope = share * rate
    constant = share - slope * (moment / total)
    for reads, feeds in taps:
        below, weight = excess(reads, feeds)
        pulled[reads] += weight * constant[feeds] + slope[feeds] * (weight * below)
    return pulled


# Numbers in one piece of work: enough to share between threads, few enough to stay in the cache.
_PIECE = 2**18
# The least sum of a window that is exact enough: smaller ones lose their smaller terms.
_LEAST_SUM = {torch.float32: math.exp(-60.0), torch.float64: math.exp(-600.0)}


def _by_sums(
    grad: Tensor,
    x: Tensor,
    windows: Windows,
    rate: float,
    differentiated: bool,
    into: Tensor | None,
) -> Tensor | None:
    """For regular windows: sums over windows and back, one axis after the other.

    With one shift for all windows of a plane, u = (x - max) / T and e = exp(u), the sums over
    windows of e and of e u hold all that the formula needs; those of e alone where the softmax is
    held. None where values lie too far apart for that.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    space = tuple(range(-len(windows.kernel), 0))
    taps = windows.per_axis(x, grad)
    pulled = into
    if pulled is None:  # made from the gradient, which may be a batch of gradients
        pulled = grad.new_empty_strided(x.shape, torch.empty_like(x).stride())
    planes, grads, target = x, grad, pulled
    if x.is_contiguous() and grad.is_contiguous():
        planes, grads, target = (
            part.view(-1, *part.shape[space[0] :]) for part in (x, grad, pulled)
        )
    step = max(1, len(planes))
    if x.device.type == "cpu":
        step = max(1, _PIECE * len(planes) // max(1, x.numel()))
    for start in range(0, len(planes), step):
        piece = slice(start, start + step)
        part = planes[piece].to(wide)
        u = torch.add(part.amax(space, keepdim=True).mul_(-rate), part, alpha=rate)
        e = u.exp_() if not differentiated else u.exp()
        if not differentiated:
            total = _sum(e, taps, grad)
            if not bool(total.amin() > _LEAST_SUM[wide]):
                return None
            share = _cut(grads, 0, piece).to(wide) / total
            _cut(target, 0, piece).copy_(_spread(share, taps, part).mul_(e))
            continue
        eu = u.mul_(e)
        total, moment = _sum(e, taps, grad), _sum(eu, taps, grad)
        # False also for NaN, which infinite values become.
        if not bool((total.amin() > _LEAST_SUM[wide]) & moment.amin().isfinite()):
            return None
        # w_j (1 + (x_j - s) / T) g is share (e u + e (1 - mean u)), with share = g / sum e.
        share = _cut(grads, 0, piece).to(wide) / total
        constant = torch.addcmul(share, share, moment.div_(total), value=-1.0)
        factor = _spread(constant, taps, part).mul_(e)
        _cut(target, 0, piece).copy_(factor.addcmul_(_spread(share, taps, part), eu))
    return pulled


def _sum(x: Tensor, taps: list[Taps], y: Tensor) -> Tensor:
    """The sum of each window of x, of the spatial shape of y."""
    for axis, along in enumerate(taps, start=-len(taps)):
        size = y.shape[axis]
        full = [reads for reads, feeds in along if feeds == slice(0, size)][:2]
        if len(full) == 2:
            total = _cut(x, axis, full[0]) + _cut(x, axis, full[1])
        else:
            total, full = _zeros(x, axis, size), []
        for reads, feeds in along:
            if reads not in full:
                _cut(total, axis, feeds).add_(_cut(x, axis, reads))
        x = total
    return x


def _spread(values: Tensor, taps: list[Taps], x: Tensor) -> Tensor:
    """The transpose of `_sum`: each entry of x gets the values of all windows it is in."""
    for axis, along in reversed(list(enumerate(taps, start=-len(taps)))):
        spread = _zeros(values, axis, x.shape[axis])
        for reads, feeds in along:
            _cut(spread, axis, reads).add_(_cut(values, axis, feeds))
        values = spread
    return values


def _cut(x: Tensor, axis: int, places: slice) -> Tensor:
    """These places along an axis, as a view, for batched gradients too."""
    cut: Tensor = aten.slice.Tensor(x, axis, places.start, places.stop, places.step or 1)
    return cut


def _zeros(like: Tensor, axis: int, size: int) -> Tensor:
    """Zeros of the shape and the layout of a tensor, but for the size of one axis."""
    shape = list(like.shape)
    shape[axis] = size
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(like.dim())
    if layout is None or like.is_contiguous() or not like.is_contiguous(memory_format=layout):
        return like.new_zeros(shape)
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout).zero_()
