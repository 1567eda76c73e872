r"""What the backward pass of a soft gate is: tensors only, no modules.

Every gate here is a piecewise linear operation. Its derivative is a step function, and a soft
gate replaces each step by a logistic curve of temperature :math:`T`:

.. math::
    1[z > c] \;\longrightarrow\; \sigma\bigl((z - c) / T\bigr)

which is the derivative averaged over logistic noise of scale :math:`T` on the pre-activation
:math:`z`. For ReLU (one step, at 0) this is the excitation pullback of arXiv 2507.22832; for the
other pieces of the ReLU family it is the same average, so that no second rule is needed. Forward
passes are always computed by the original operation, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

__all__ = ["RELU", "CheckpointMismatchError", "PiecewiseLinear", "soft_gate", "soft_prelu"]

Temperature = float | Tensor

# Beyond this many temperatures from a kink the logistic curve is 0 or 1 in float64 too, and
# exp() must not be asked for more: it overflows to inf, and inf / inf is NaN.
_SATURATION = 40.0
# 1 / T stays finite in float32, so that 0 / T is 0 and not NaN.
SMALLEST_TEMPERATURE = 1e-20


_softplus_backward: Callable[..., Tensor] = torch.ops.aten.softplus_backward.default
_softplus_backward_into: Callable[..., Tensor] = torch.ops.aten.softplus_backward.grad_input


class CheckpointMismatchError(RuntimeError):
    """Activation checkpointing recomputed, or would recompute, a forward pass outside `soften`."""

    def __init__(self) -> None:
        super().__init__(
            "activation checkpointing runs the forward pass again when the gradient is taken, and "
            "that must be inside of soften(): take it inside the `with soften(...)` block"
        )


class GateInputChangedError(RuntimeError):
    """A network changed the input of a gate in place, after the gate had run."""

    def __init__(self) -> None:
        super().__init__(
            "the network changed the input of a gate in place after the gate had run, and soft "
            "gates need that input: let it use an operation that is not in place there"
        )


@dataclass(frozen=True)
class PiecewiseLinear:
    r"""The derivative of a piecewise linear function of one variable.

    ``slopes[0]`` holds left of ``kinks[0]``, ``slopes[k]`` between ``kinks[k - 1]`` and
    ``kinks[k]``, ``slopes[-1]`` right of the last kink. Softened at temperature T it is

    .. math::
        f'(z) = s_0 + \sum_k (s_k - s_{k-1}) \, \sigma\bigl((z - c_k) / T\bigr).

    Attributes:
        slopes: One more slope than there are kinks.
        kinks: Where the slope changes, ascending.
    """

    slopes: tuple[float, ...]
    kinks: tuple[float, ...]


RELU = PiecewiseLinear(slopes=(0.0, 1.0), kinks=(0.0,))


def step(
    grad: Tensor, distance: Tensor, temperature: Temperature, *, reuse: bool = False
) -> Tensor:
    """``grad * sigmoid(distance / temperature)``, computed in float32 at least.

    With ``reuse`` the result may take the memory of ``distance``: fresh pages are dear.
    """
    if not isinstance(temperature, Tensor):
        # softplus' derivative with beta = 1 / T, in one kernel; it computes half precision in
        # float32 by itself.
        beta = 1.0 / max(temperature, SMALLEST_TEMPERATURE)
        if reuse and _alike(grad, distance):
            return _softplus_backward_into(grad, distance, beta, _SATURATION, grad_input=distance)
        return _softplus_backward(grad, distance, beta, _SATURATION)
    wide = torch.promote_types(distance.dtype, torch.float32)
    distance, temperature = distance.to(wide), temperature.to(wide)
    gate = torch.sigmoid(distance / temperature.clamp_min(SMALLEST_TEMPERATURE))
    gate = torch.where(temperature > 0, gate, (distance > 0).to(wide))
    return (grad.to(wide) * gate).to(grad.dtype)


def _alike(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors lie in memory in the same way."""
    return (
        first.shape == second.shape
        and first.stride() == second.stride()
        and first.dtype == second.dtype
    )


def _slope(
    grad: Tensor, z: Tensor, curve: PiecewiseLinear, temperature: Temperature, *, reuse: bool
) -> Tensor:
    """``grad`` times the softened derivative of ``curve`` at z, whose memory it may ``reuse``."""
    if curve == RELU:
        return step(grad, z, temperature, reuse=reuse)
    # In float32 at least, so that steps that cancel do so before anything is rounded.
    wide = torch.promote_types(z.dtype, torch.float32)
    dtype, grad, z = grad.dtype, grad.to(wide), z.to(wide)
    quick = may_write(grad)
    total = grad * curve.slopes[0] if curve.slopes[0] else None
    # Of one length, as Dynamo wants it in torch 2.8.
    for left, right, kink in zip(curve.slopes[:-1], curve.slopes[1:], curve.kinks, strict=True):
        if kink == math.inf:
            break
        if kink == -math.inf:
            opened = grad
        else:
            spare = reuse and kink == curve.kinks[-1]  # nothing needs z any more
            distance = z
            if kink:
                distance = z.sub_(kink) if spare else z - kink
            opened = step(grad, distance, temperature, reuse=spare or (quick and kink != 0))
        if total is not None:
            into = {"out": total} if quick and total is not grad else {}
            total = torch.add(total, opened, alpha=right - left, **into)
        elif right - left == 1:
            total = opened
        else:
            total = (right - left) * opened
    return torch.zeros_like(grad) if total is None else total.to(dtype)


def mark(like: Tensor) -> Tensor:
    """An empty tensor of a shape that no network saves, kept beside z.

    Checkpointing hands saved tensors back by their order in a second forward pass. If that pass
    ran outside `soften`, hard gates have saved other tensors, and z would silently be something
    else: then the mark is something else too.
    """
    return like.new_empty((0, 7, 0, 7))


def saved(ctx: Any) -> tuple[Any, ...]:
    """What a gate saved, the mark being last, or an error that says why it is lost."""
    try:
        *tensors, token = ctx.saved_tensors
    except RuntimeError as error:
        if "inplace operation" in str(error):
            raise GateInputChangedError from error
        raise
    if token.shape != (0, 7, 0, 7):
        raise CheckpointMismatchError
    return tuple(tensors)


def is_watched() -> bool:
    """Whether a compiler, `torch.func` or `torch.vmap` is at work."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def may_write(grad: Tensor) -> bool:
    """Whether a backward pass may write into tensors: not for second derivatives, nor batched."""
    if torch.is_grad_enabled() or is_watched():
        return False
    return not torch._C._functorch.is_legacy_batchedtensor(grad)


def unseen() -> AbstractContextManager[Any]:
    """A block whose operations function modes are not shown, which would take its time.

    Not around `saved`: what it unpacks may be recomputed, and that must be seen.
    """
    return nullcontext() if torch.compiler.is_compiling() else torch._C.DisableTorchFunction()


def quick(function: type[Function]) -> Callable[..., Any]:
    """``function.apply``, without what PyTorch does for functions that come in two pieces.

    Compilers and `torch.func` want forward and setup_context apart; but PyTorch then reads the
    signature anew in each call, which takes longer than a small gate.
    """

    def forward(ctx: Any, *inputs: Any) -> Any:
        output = function.forward(*inputs)
        function.setup_context(ctx, inputs, output)
        return output

    pieces = {
        "forward": staticmethod(forward),
        "setup_context": staticmethod(Function.setup_context),
    }
    whole = type(function.__name__, (function,), pieces)

    def apply(*inputs: Any) -> Any:
        if is_watched():
            return function.apply(*inputs)
        return whole.apply(*inputs)  # type: ignore[attr-defined]

    return apply


class _SoftGate(Function):
    """``operation(z)`` forward, the softened slope of ``curve`` backward.

    ``target`` is z itself for an operation that works in place, and ``z`` then a copy of it:
    the copy is what the gate needs later, and what keeps second derivatives right. Where the
    gradient is taken ``once``, its memory then becomes that of the result.
    """

    @staticmethod
    def forward(
        z: Tensor,
        target: Tensor | None,
        temperature_tensor: Tensor | None,
        operation: Callable[[Tensor], Tensor],
        curve: PiecewiseLinear,
        temperature: float,
        once: bool,
    ) -> Tensor:
        return operation(z if target is None else target)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        z, target, temperature_tensor, _, ctx.curve, ctx.temperature, once = inputs
        ctx.reuse = once and target is not None
        if target is not None:
            ctx.mark_dirty(target)
        ctx.save_for_backward(z, temperature_tensor, mark(z))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        z, temperature = saved(ctx)
        temperature = ctx.temperature if temperature is None else temperature
        with unseen():
            # A second time would be an error: autograd sees that z has changed since.
            reuse = ctx.reuse and may_write(grads[0])
            pulled = _slope(grads[0], z, ctx.curve, temperature, reuse=reuse)
            return pulled, None, None, None, None, None, None


class _SoftPReLU(Function):
    r"""PReLU, whose left slope a is a parameter: ``a + (1 - a) sigmoid(z / T)`` backward.

    The parameter's own gradient is softened alike: ``z (1 - sigmoid(z / T))``, summed.
    """

    @staticmethod
    def forward(
        z: Tensor,
        weight: Tensor,
        temperature_tensor: Tensor | None,
        operation: Callable[[Tensor], Tensor],
        temperature: float,
    ) -> Tensor:
        return operation(z)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        z, weight, temperature_tensor, _, ctx.temperature = inputs
        ctx.save_for_backward(z, weight, temperature_tensor, mark(z))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        z, weight, temperature = saved(ctx)
        with unseen():
            opened = step(grads[0], z, ctx.temperature if temperature is None else temperature)
            closed = grads[0] - opened
            wanted = ctx.needs_input_grad[1]
            grad_weight = (z * closed).sum_to_size(weight.shape) if wanted else None
            return weight * closed + opened, grad_weight, None, None, None


_run_gate: Callable[..., Tensor] = quick(_SoftGate)
_run_prelu: Callable[..., Tensor] = quick(_SoftPReLU)


def soft_gate(
    operation: Callable[[Tensor], Tensor],
    z: Tensor,
    curve: PiecewiseLinear,
    temperature: Temperature,
    *,
    inplace: bool = False,
    once: bool = False,
) -> Tensor:
    """Run an elementwise operation whose backward pass is soft.

    Args:
        operation: The original operation, of z alone; its output is returned to the bit.
        z: Pre-activations, any shape, any floating dtype; the gate is computed in float32 at
            least.
        curve: The derivative of ``operation``.
        temperature: In units of z, 0 to inf. A tensor broadcasts against z.
        inplace: Whether ``operation`` writes its result into z.
        once: Whether the gradient is going to be taken once, after which memory may be reused; a
            second time raises `GateInputChangedError`.
    """
    number, tensor = split(temperature)
    if not inplace:
        return _run_gate(z, None, tensor, operation, curve, number, once)
    if torch.compiler.is_compiling():
        # Dynamo has no mark_dirty; the compiler's functionalisation makes these copies nothing.
        return z.copy_(
            _run_gate(z.clone(), None, tensor, lambda c: operation(c.clone()), curve, number, False)
        )
    return _run_gate(z.clone(), z, tensor, operation, curve, number, once)


def soft_prelu(
    operation: Callable[[Tensor], Tensor], z: Tensor, weight: Tensor, temperature: Temperature
) -> Tensor:
    """Run PReLU with a soft backward pass; weight has one entry, or one per channel (dim 1)."""
    number, tensor = split(temperature)
    channels = [-1 if dim == min(1, z.dim() - 1) else 1 for dim in range(z.dim())]
    shaped = weight.reshape(channels) if weight.numel() > 1 else weight.reshape([1] * z.dim())
    return _run_prelu(z, shaped, tensor, operation, number)


def split(temperature: Temperature) -> tuple[float, Tensor | None]:
    """A temperature as (number, tensor), one of which counts: autograd saves tensors apart."""
    return (0.0, temperature) if isinstance(temperature, Tensor) else (temperature, None)
