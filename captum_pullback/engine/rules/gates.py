r"""Gates of elementwise operations: mathematics alone.

A gate is the factor by which an operation multiplies its input. Of a piecewise linear one it is
the derivative, a step function; softened at temperature :math:`T`, each step becomes

.. math::
    1[z > c] \;\longrightarrow\; \sigma\bigl((z - c) / T\bigr),

the derivative averaged over logistic noise of scale :math:`T` on the pre-activation :math:`z`
(arXiv 2507.22832 v1 to v4 for ReLU), or :math:`\Phi((z - c) / T)` for Gaussian noise. Of any other
it is the slope of the secant from 0, :math:`(f(z) - f(0)) / z`; for GELU and its like, which are z
times a gate of their own, that is this gate (v5 and v6).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_pullback.engine.calls.held import Context, Held, derivative, may_write
from captum_pullback.engine.rules.steps import Number, Step, step

__all__ = [
    "RELU",
    "PiecewiseLinear",
    "capped",
    "gated",
    "hardswish_gate",
    "prelu",
    "secant",
    "sigmoid_gate",
]


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

    def held(self, step: Step = step) -> Held:
        """Held at the softened slope, by logistic or Gaussian noise."""
        if self == RELU:
            return Held(_relu(step), hard=True, rectifies=True)

        def pull(context: Context, grad: Tensor, z: Tensor) -> Tensor:
            return self.slope(grad, z, context.temperature(z), step, reuse=context.reuse)

        return Held(pull, hard=True)

    def slope(
        self, grad: Tensor, z: Tensor, temperature: Number, step: Step = step, *, reuse: bool
    ) -> Tensor:
        """``grad`` times the softened slope at z, whose memory it may ``reuse``."""
        # In float32 at least, so that steps that cancel do so before anything is rounded.
        wide = torch.promote_types(z.dtype, torch.float32)
        dtype, grad, z = grad.dtype, grad.to(wide), z.to(wide)
        quick = may_write(grad)
        total = grad * self.slopes[0] if self.slopes[0] else None
        # Of one length, as Dynamo wants it in torch 2.8.
        pieces = zip(self.slopes[:-1], self.slopes[1:], self.kinks, strict=True)
        for left, right, kink in pieces:
            if kink == math.inf:
                break
            if kink == -math.inf:
                opened = grad
            else:
                spare = reuse and kink == self.kinks[-1]  # nothing needs z any more
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


RELU = PiecewiseLinear(slopes=(0.0, 1.0), kinks=(0.0,))


def _relu(step: Step) -> Callable[[Context, Tensor, Tensor], Tensor]:
    def pull(context: Context, grad: Tensor, z: Tensor) -> Tensor:
        return step(grad, z, context.temperature(z), reuse=context.reuse)

    return pull


def capped(low: float, high: float, reading: str, step: Step = step) -> Held:
    r"""ReLU6, hardtanh, clamp: linear from ``low`` to ``high``, constant beyond.

    Three readings of the gate above ``high`` (and below a negative ``low``): its ``derivative``,
    0; ``held``, by which it multiplies its input there, :math:`\mathrm{high} / z`; or ``excited``,
    open. Below ``low`` = 0 each is closed.
    """
    if reading == "derivative":
        return PiecewiseLinear((0.0, 1.0, 0.0), (low, high)).held(step)
    if low != 0:
        if reading == "excited":
            return PiecewiseLinear((0.0, 1.0), (low,)).held(step)
        return secant()

    def pull(context: Context, grad: Tensor, z: Tensor) -> Tensor:
        if reading == "excited":
            return step(grad, z, context.temperature(z), reuse=context.reuse)
        # min(1, high / z) for z > 0; what is left of 0 is closed, or as good as closed.
        if not may_write(grad):
            return step(grad, z, context.temperature(z)) * (high / z.clamp_min(high))
        share = torch.empty_like(z)
        temperature = context.temperature(z, spare=share)
        torch.clamp_min(z, high, out=share).reciprocal_().mul_(high)
        return step(grad, z, temperature, reuse=context.reuse).mul_(share)

    return Held(pull)


def prelu(weight: Tensor, step: Step = step) -> Held:
    r"""PReLU, whose left slope a is a parameter: ``a + (1 - a) sigmoid(z / T)``.

    The parameter's own gradient is softened alike: ``z (1 - sigmoid(z / T))``, summed.

    Args:
        weight: One entry, or one per channel (dimension 1).
        step: Of the noise.
    """

    def run(operation: Callable[[Tensor], Tensor], z: Tensor, _: Tensor) -> tuple[Tensor]:
        return (operation(z),)

    def pull(context: Context, grad: Tensor, z: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        channels = [-1 if dim == min(1, z.dim() - 1) else 1 for dim in range(z.dim())]
        shaped = weight.reshape(channels if weight.numel() > 1 else [1] * z.dim())
        opened = step(grad, z, context.temperature(z))
        closed = grad - opened
        own = (z * closed).sum_to_size(shaped.shape).reshape(weight.shape)
        return shaped * closed + opened, own if context.wanted[1] else None  # type: ignore[return-value]

    return Held(pull, (weight,), run, (0, 1), hard=True)


def secant(*, gate: bool = False, signed_gate: bool = False) -> Held:
    r"""Held at the slope of the secant from 0, :math:`(f(z) - f(0)) / z`; its limit where z is 0.

    Args:
        gate: Whether the output is a gate for what it multiplies.
        signed_gate: Whether it is one once a constant is added.
    """

    def pull(context: Context, grad: Tensor, z: Tensor) -> Tensor:
        if context.call.derivative:
            (pulled,) = derivative(context.call, [z], [True], grad)
            return pulled  # type: ignore[return-value]
        wide = z.to(torch.promote_types(z.dtype, torch.float32))
        # Below this the difference has more rounding error than the limit is off by.
        least = math.sqrt(torch.finfo(wide.dtype).eps)
        ends = torch.tensor([0.0, least, -least], dtype=wide.dtype, device=z.device)
        zero, right, left = context.operation(ends).unbind()
        flat = wide.abs() < least
        slope = (context.operation(wide.clone()) - zero) / torch.where(flat, 1.0, wide)
        limit = (right - left) / (2 * least)
        return (grad.to(wide.dtype) * torch.where(flat, limit, slope)).to(grad.dtype)

    def push(context: Context, moved: tuple[Tensor, ...], z: Tensor) -> Tensor:
        zero: Tensor = context.operation(z.new_zeros(1))
        return pull(context, torch.ones_like(z), z) * moved[0] + zero

    return Held(pull, softens=False, gate=gate, signed_gate=signed_gate, push=push)


def gated(gate: Callable[[Tensor, Number], Tensor]) -> Held:
    """Held at z's own gate: GELU's ``Phi(z)``, SiLU's ``sigmoid(z)``, softened at T."""

    def pull(context: Context, grad: Tensor, z: Tensor) -> Tensor:
        wide = torch.promote_types(z.dtype, torch.float32)
        temperature = context.temperature(z)
        if isinstance(temperature, Tensor):
            temperature = temperature.to(wide)
        opened = gate(z.to(wide), temperature)
        if may_write(grad) and opened.dtype == grad.dtype:
            return opened.mul_(grad)
        return (grad.to(wide) * opened).to(grad.dtype)

    def push(context: Context, moved: tuple[Tensor, ...], z: Tensor) -> Tensor:
        return pull(context, moved[0], z)  # it is 0 at 0, so that nothing is added

    return Held(pull, push=push)


def _widened(z: Tensor, temperature: Number) -> Tensor:
    r"""Z over the width that noise of scale T gives a curve of width 1: ``z / sqrt(1 + T^2)``."""
    if isinstance(temperature, Tensor):
        return z / torch.sqrt(1 + temperature.square())
    return z / math.hypot(1.0, temperature) if temperature else z


def normal_gate(z: Tensor, temperature: Number) -> Tensor:
    r""":math:`\Phi(z / \sqrt{1 + T^2})`: GELU's gate averaged over Gaussian noise of scale T."""
    # As GELU itself computes it; `torch.special.ndtr` takes many times as long.
    if isinstance(temperature, Tensor):
        scaled = _widened(z, temperature) * math.sqrt(0.5)
    else:
        scaled = z * (math.sqrt(0.5) / math.hypot(1.0, temperature))
    if may_write(z):
        return scaled.erf_().add_(1).mul_(0.5)
    return 0.5 * (1 + torch.erf(scaled))


def tanh_normal_gate(z: Tensor, temperature: Number) -> Tensor:
    r"""The same of GELU's form by tanh, :math:`(1 + \tanh(\sqrt{2/\pi}(z + 0.044715 z^3))) / 2`."""
    z = _widened(z, temperature)
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


def sigmoid_gate(z: Tensor, temperature: Number) -> Tensor:
    r""":math:`\sigma(z / \sqrt{1 + T^2})`: SiLU's gate, over noise of scale T."""
    return torch.sigmoid(_widened(z, temperature))


def hardswish_gate(z: Tensor, temperature: Number) -> Tensor:
    r"""Hardswish's gate, ``relu6(z + 3) / 6``, averaged over logistic noise of scale T.

    .. math::
        \frac{T}{6} \Bigl(\mathrm{softplus}\frac{z + 3}{T} - \mathrm{softplus}\frac{z - 3}{T}\Bigr)
    """
    hard = torch.clamp((z + 3) / 6, 0, 1)
    if not isinstance(temperature, Tensor):
        if not temperature:
            return hard
        if temperature == math.inf:
            return torch.full_like(z, 0.5)
        return (softplus((z + 3) / temperature) - softplus((z - 3) / temperature)) * temperature / 6
    t = temperature.clamp_min(1e-6).clamp_max(1e6)
    soft = (softplus((z + 3) / t) - softplus((z - 3) / t)) * t / 6
    return torch.where(temperature > 0, soft, hard)


def softplus(z: Tensor) -> Tensor:
    """``log(1 + exp(z))``, to the last digit also where PyTorch's own is cut off."""
    return torch.logaddexp(z, torch.zeros_like(z))
