r"""Gates of normalizations: one over the standard deviation (or the norm) is held.

.. math::
    y = \frac{x - \mathrm{mean}(x)}{\sigma(x)} \, w + b
    \qquad\Longrightarrow\qquad
    \bar x = u - \mathrm{mean}(u), \quad u = \frac{\bar y \, w}{\sigma(x)}

The mean is linear and stays. Nothing of the input needs to be kept. Source: arXiv 2507.22832 v5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from captum_pullback.engine.calls.held import Context, Held, may_write

__all__ = ["group_norm", "instance_norm", "layer_norm", "normalize", "rms_norm"]

_layer_norm: Callable[..., tuple[Tensor, Tensor, Tensor]] = torch.native_layer_norm
_group_norm: Callable[..., tuple[Tensor, Tensor, Tensor]] = torch.native_group_norm


def _parameters_pulled(
    context: Context, grad: Tensor, normal: Tensor | None, weight: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of weight and bias, of the weight's shape at the end of the input's."""
    if weight is None or normal is None:
        own = None
    else:
        own = (grad * normal).sum_to_size(weight.shape) if context.wanted[1] else None
    bias = None
    if context.wanted[2]:
        shape = weight.shape if weight is not None else grad.shape[-1:]
        bias = grad.sum_to_size(shape)
    return own, bias


def _widened(moved: tuple[Any, ...]) -> tuple[Any, ...]:
    """The input and parameters in float32 at least."""
    wide = torch.promote_types(moved[0].dtype, torch.float32)
    return tuple(None if part is None else part.to(wide) for part in moved)


def _affine(normal: Tensor, weight: Tensor | None, bias: Tensor | None, like: Tensor) -> Tensor:
    """What is normalized, times the weight plus the bias, in the type of the input."""
    scaled = normal if weight is None else normal * weight
    return (scaled if bias is None else scaled + bias).to(like.dtype)


def layer_norm(
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
    **__: Any,
) -> Held:
    """LayerNorm over the last dimensions."""
    shape = [normalized_shape] if isinstance(normalized_shape, int) else list(normalized_shape)
    dims = tuple(range(-len(shape), 0))
    trains = any(part is not None and part.requires_grad for part in (weight, bias))

    def run(
        operation: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, ...]:
        output, mean, rstd = _layer_norm(x, shape, weight, bias, eps)
        return (output, mean, rstd) if trains else (output, rstd)

    def pull(context: Context, grad: Tensor, *saved: Any) -> tuple[Tensor | None, ...]:
        wide = torch.promote_types(grad.dtype, torch.float32)
        x, weight = saved[0] if trains else None, saved[int(trains)]
        rstd = saved[-1]
        wide_grad = grad.to(wide)
        if may_write(grad):  # memory that is there is quicker than fresh one
            scaled = wide_grad * (rstd if weight is None else weight)
            scaled = scaled if weight is None else scaled.mul_(rstd)
            pulled = scaled.sub_(scaled.mean(dims, keepdim=True)).to(grad.dtype)
        else:
            scaled = wide_grad * rstd if weight is None else wide_grad * (weight * rstd)
            pulled = (scaled - scaled.mean(dims, keepdim=True)).to(grad.dtype)
        normal = None if x is None else (x.to(wide) - saved[-2]) * rstd
        return pulled, *_parameters_pulled(context, wide_grad, normal, weight)

    def push(context: Context, moved: tuple[Any, ...], *saved: Any) -> Tensor:
        x, weight, bias = _widened(moved)
        return _affine((x - x.mean(dims, keepdim=True)) * saved[-1], weight, bias, moved[0])

    return Held(pull, (weight, bias), run, (0, 1) if trains else (1,), softens=False, push=push)


def rms_norm(
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
    *_: Any,
    **__: Any,
) -> Held:
    """RMSNorm over the last dimensions: the root mean square is held."""
    shape = [normalized_shape] if isinstance(normalized_shape, int) else list(normalized_shape)
    dims = tuple(range(-len(shape), 0))
    trains = weight is not None and weight.requires_grad

    def run(
        operation: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, ...]:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        least = torch.finfo(x.dtype).eps if eps is None else eps
        rstd = torch.rsqrt(wide.square().mean(dims, keepdim=True) + least)
        output = torch.rms_norm(x, shape, weight, eps)
        return output, rstd

    def pull(context: Context, grad: Tensor, *saved: Any) -> tuple[Tensor | None, ...]:
        wide = torch.promote_types(grad.dtype, torch.float32)
        weight, rstd = saved[int(trains)], saved[-1]
        wide_grad = grad.to(wide)
        pulled = wide_grad * rstd if weight is None else wide_grad * (weight * rstd)
        own = None
        if trains and context.wanted[1]:
            own = (wide_grad * (saved[0].to(wide) * rstd)).sum_to_size(weight.shape)
        return pulled.to(grad.dtype), own

    def push(context: Context, moved: tuple[Any, ...], *saved: Any) -> Tensor:
        x, weight = _widened(moved)
        return _affine(x * saved[-1], weight, None, moved[0])

    return Held(pull, (weight,), run, (0, 1) if trains else (1,), softens=False, push=push)


def group_norm(
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
    **__: Any,
) -> Held:
    """GroupNorm of (N, C, ...)."""
    trains = any(part is not None and part.requires_grad for part in (weight, bias))

    def run(
        operation: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, ...]:
        # The kernel wants what is contiguous, as PyTorch's own call makes it.
        layout = torch.channels_last if _is_channels_last(x) else torch.contiguous_format
        size = math.prod(x.shape[2:])
        output, mean, rstd = _group_norm(
            x.contiguous(memory_format=layout), weight, bias, *x.shape[:2], size, num_groups, eps
        )
        return (output, mean, rstd) if trains else (output, rstd)

    def pull(context: Context, grad: Tensor, *saved: Any) -> tuple[Tensor | None, ...]:
        x, weight = saved[0] if trains else None, saved[int(trains)]
        wide = torch.promote_types(grad.dtype, torch.float32)
        per_channel = [1, -1, *[1] * (grad.dim() - 2)]
        wide_grad = grad.to(wide)
        scaled = wide_grad if weight is None else wide_grad * weight.reshape(per_channel)
        grouped = scaled.reshape(len(grad), num_groups, -1)
        rstd = saved[-1].reshape(len(grad), num_groups, 1)
        grouped = (grouped - grouped.mean(-1, keepdim=True)) * rstd
        pulled = grouped.reshape(grad.shape).to(grad.dtype)
        own = bias = None
        others = [dim for dim in range(grad.dim()) if dim != 1]
        if x is not None and context.wanted[1]:
            mean = saved[-2].reshape(len(grad), num_groups, 1)
            normal = (x.to(wide).reshape(len(grad), num_groups, -1) - mean) * rstd
            own = (wide_grad * normal.reshape(grad.shape)).sum(others)
        if context.wanted[2]:
            bias = wide_grad.sum(others)
        return pulled, own, bias

    def push(context: Context, moved: tuple[Any, ...], *saved: Any) -> Tensor:
        x, weight, bias = _widened(moved)
        grouped = x.reshape(len(x), num_groups, -1)
        grouped = grouped - grouped.mean(-1, keepdim=True)
        normal = (grouped * saved[-1].reshape(len(x), num_groups, 1)).reshape(x.shape)
        per_channel = [1, -1, *[1] * (x.dim() - 2)]
        weight, bias = (p if p is None else p.reshape(per_channel) for p in (weight, bias))
        return _affine(normal, weight, bias, moved[0])

    return Held(pull, (weight, bias), run, (0, 1) if trains else (1,), softens=False, push=push)


def _is_channels_last(x: Tensor) -> bool:
    return (
        x.dim() == 4
        and not x.is_contiguous()
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def instance_norm(
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: Any,
    **__: Any,
) -> Held | None:
    """InstanceNorm of (N, C, ...) or (C, ...), which normalizes each channel of each example."""
    if not use_input_stats:
        return None  # by statistics of the training: linear

    def run(
        operation: Callable[[Tensor], Tensor], x: Tensor, *_: Tensor | None
    ) -> tuple[Tensor, ...]:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        dims = tuple(range(2 if x.dim() > 2 else 1, x.dim()))
        variance = wide.var(dims, correction=0, keepdim=True)
        return operation(x), torch.rsqrt(variance + eps)

    def pull(context: Context, grad: Tensor, *saved: Any) -> tuple[Tensor | None, ...]:
        x, weight, rstd = saved
        wide = torch.promote_types(grad.dtype, torch.float32)
        dims = tuple(range(2 if grad.dim() > 2 else 1, grad.dim()))
        others = [0, *dims] if grad.dim() > 2 else list(dims)
        channels = [-1 if dim == min(1, grad.dim() - 2) else 1 for dim in range(grad.dim())]
        wide_grad = grad.to(wide)
        scaled = rstd * (wide_grad if weight is None else wide_grad * weight.reshape(channels))
        pulled = (scaled - scaled.mean(dims, keepdim=True)).to(grad.dtype)
        own = parameter = None
        if weight is not None and context.wanted[1]:
            wide_x = x.to(wide)
            normal = (wide_x - wide_x.mean(dims, keepdim=True)) * rstd
            own = (wide_grad * normal).sum(others)
        if context.wanted[2]:
            parameter = wide_grad.sum(others)
        return pulled, own, parameter

    def push(context: Context, moved: tuple[Any, ...], *saved: Any) -> Tensor:
        x, weight, bias = _widened(moved)
        dims = tuple(range(2 if x.dim() > 2 else 1, x.dim()))
        channels = [-1 if dim == min(1, x.dim() - 2) else 1 for dim in range(x.dim())]
        weight, bias = (p if p is None else p.reshape(channels) for p in (weight, bias))
        return _affine((x - x.mean(dims, keepdim=True)) * saved[-1], weight, bias, moved[0])

    return Held(pull, (weight, bias), run, (0, 1), softens=False, push=push)


def normalize(
    p: float = 2.0, dim: int | Sequence[int] = 1, eps: float = 1e-12, *_: Any, **__: Any
) -> Held:
    """``F.normalize``: over the norm, which is held."""

    def run(operation: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, ...]:
        return operation(x), torch.linalg.vector_norm(x, p, dim, keepdim=True).clamp_min(eps)

    def pull(context: Context, grad: Tensor, length: Tensor) -> Tensor:
        return grad / length

    def push(context: Context, moved: tuple[Tensor, ...], length: Tensor) -> Tensor:
        return moved[0] / length

    return Held(pull, run=run, saves=(), softens=False, push=push)
