"""One soft step: a gradient times the curve that a step becomes at a temperature."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from captum_pullback.engine.calls.held import may_write

__all__ = ["SMALLEST_TEMPERATURE", "Number", "Step", "step", "step_normal"]

Number = float | Tensor
Step = Callable[..., Tensor]

# Beyond this many temperatures from a kink the logistic curve is 0 or 1 in float64 too, and
# exp() must not be asked for more: it overflows to inf, and inf / inf is NaN.
_SATURATION = 40.0
# 1 / T stays finite in float32, so that 0 / T is 0 and not NaN.
SMALLEST_TEMPERATURE = 1e-20

_softplus_backward: Callable[..., Tensor] = torch.ops.aten.softplus_backward.default
_softplus_backward_into: Callable[..., Tensor] = torch.ops.aten.softplus_backward.grad_input


def step(grad: Tensor, distance: Tensor, temperature: Number, *, reuse: bool = False) -> Tensor:
    """``grad * sigmoid(distance / temperature)``, computed in float32 at least.

    With ``reuse`` the result may take the memory of ``distance``: allocating memory costs more
    than the arithmetic.
    """
    if isinstance(temperature, Tensor):
        if not torch.compiler.is_compiling() and len(temperature) == len(distance) > 1:
            return _step_each(grad, distance, temperature, reuse=reuse)
        return _step_broadcast(grad, distance, temperature, torch.sigmoid)
    if temperature == math.inf:
        return grad * 0.5  # also where z is infinite, and z / T is not a number
    if temperature == 0:
        return grad.masked_fill(distance <= 0, 0.0)  # PyTorch's own derivative, also at the kink
    # softplus' derivative with beta = 1 / T, in one kernel; it computes half precision in
    # float32 by itself.
    beta = 1.0 / max(temperature, SMALLEST_TEMPERATURE)
    if reuse and _alike(grad, distance):
        return _softplus_backward_into(grad, distance, beta, _SATURATION, grad_input=distance)
    return _softplus_backward(grad, distance, beta, _SATURATION)


def step_normal(
    grad: Tensor, distance: Tensor, temperature: Number, *, reuse: bool = False
) -> Tensor:
    """``grad * Phi(distance / temperature)``, computed in float32 at least."""
    if not isinstance(temperature, Tensor):
        temperature = torch.tensor(temperature, dtype=torch.float64, device=distance.device)
    return _step_broadcast(grad, distance, temperature, torch.special.ndtr)


def _step_broadcast(
    grad: Tensor, distance: Tensor, temperature: Tensor, curve: Callable[[Tensor], Tensor]
) -> Tensor:
    wide = torch.promote_types(distance.dtype, torch.float32)
    distance, temperature = distance.to(wide), temperature.to(wide)
    gate = curve(distance / temperature.clamp_min(SMALLEST_TEMPERATURE))
    gate = torch.where(temperature > 0, gate, (~(distance <= 0)).to(wide))
    gate = torch.where(temperature == math.inf, 0.5, gate)
    return (grad.to(wide) * gate).to(grad.dtype)


def _step_each(grad: Tensor, distance: Tensor, temperature: Tensor, *, reuse: bool) -> Tensor:
    """`step` for a temperature of each example, (N, 1, ...): the one kernel, N times."""
    per_example = temperature.numel() == len(temperature)
    if not per_example or grad.device.type != "cpu" or not may_write(grad):
        return _step_broadcast(grad, distance, temperature, torch.sigmoid)
    result = distance if reuse and _alike(grad, distance) else torch.empty_like(grad)
    if result.stride() != grad.stride() or distance.dtype != grad.dtype:
        return _step_broadcast(grad, distance, temperature, torch.sigmoid)
    examples = zip(grad.unbind(), distance.unbind(), result.unbind(), strict=True)
    values = temperature.flatten().tolist()
    for value, (coming, away, going) in zip(values, examples, strict=True):
        if value == math.inf:
            torch.mul(coming, 0.5, out=going)
        elif value == 0:
            torch.mul(coming, ~(away <= 0), out=going)
        else:
            beta = 1.0 / max(value, SMALLEST_TEMPERATURE)
            _softplus_backward_into(coming, away, beta, _SATURATION, grad_input=going)
    return result


def _alike(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors lie in memory in the same way."""
    return (
        first.shape == second.shape
        and first.stride() == second.stride()
        and first.dtype == second.dtype
    )
