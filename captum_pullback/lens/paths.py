r"""The gates of one forward pass: which are open, and a pass through gates that are given.

A path through a network is a choice of gates. If gates are fixed from outside, by their averages
over training say, the network is linear in its input along those paths: the fixed-path machine of
the path stability hypothesis (arXiv 2507.22832).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from captum_pullback.engine.models import on_copies
from captum_pullback.engine.observer import Observer
from captum_pullback.engine.names import NONLINEAR, read_call, split_call
from captum_pullback.engine.rules import EXCITATION
from captum_pullback.engine.softening import SofteningError, watch

__all__ = ["FixedPaths", "Gate", "read_gates"]

# What a gate of these passes on where it is closed: not zero, but its value at -1, negated.
_LEAKY = frozenset(("leaky_relu", "prelu", "rrelu"))
_KINK_AT_ZERO = _LEAKY | {"relu"}


@dataclass(frozen=True)
class Gate:
    """One gating operation, as one forward pass ran it.

    Attributes:
        name: The module's name; with " (2)" and so on where it ran more gates than one.
        module: The module's name alone, as temperatures want it.
        z: The gate's input, of shape (N, ...); None unless it was asked for.
        open: For a gate of single units, whether each is open: a bool tensor like z.
        choice: For a max pool, the place in the plane of the entry that passed.
    """

    name: str
    module: str
    z: Tensor | None
    open: Tensor | None = None
    choice: Tensor | None = None


class _Calls(Observer):
    """Remembers the call of the gate that `watch` is going to see."""

    #: The function, and its arguments after the input.
    call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

    def observe(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if func in NONLINEAR:
            self.call = (func, *split_call(args, kwargs)[1:])


def read_gates(
    model: Callable[..., Any], inputs: Tensor, *, keep_z: bool = False
) -> tuple[list[Gate], Tensor]:
    """The gates of a forward pass, in the order in which they ran, and the output.

    Args:
        model: The network, in the mode in which it is to be watched.
        inputs: Shape (N, ...).
        keep_z: Whether to keep the gates' inputs.

    Raises:
        SofteningError: No gate ran where it could be met.
    """
    gates: list[Gate] = []
    names: dict[str, int] = {}
    calls = _Calls()

    def see(module: str, operation: str, z: Tensor) -> None:
        names[module] = count = names.get(module, 0) + 1
        name = (module or "(model)") + (f" ({count})" if count > 1 else "")
        kept = z.clone() if keep_z else None
        if "pool" in operation:
            gates.append(Gate(name, module, kept, choice=_choice(z, *calls.call)))
        else:
            gates.append(Gate(name, module, kept, open=_open(operation, z, *calls.call)))

    with torch.no_grad(), watch(model, see), calls:
        output = on_copies(model, inputs)
    if not gates:
        raise SofteningError(
            "no gate was met: no ReLU and no max pool ran, or they ran inside compiled or "
            "scripted code"
        )
    return gates, output


def _open(operation: str, z: Tensor, func: Any, rest: Any, named: Any) -> Tensor:
    if operation in _KINK_AT_ZERO:
        return z > 0
    # ReLU6, hardtanh, clamp: what passes is what they leave alone.
    left_alone: Tensor = func(z.clone(), *rest, **named) == z
    return left_alone


def _choice(z: Tensor, func: Any, rest: Any, named: Any) -> Tensor:
    name = NONLINEAR[func].name
    with_indices: Any = getattr(F, f"{name}_with_indices")
    named = {key: value for key, value in named.items() if key != "return_indices"}
    indices: Tensor = with_indices(z, *rest, **named)[1]
    return indices


class FixedPaths(TorchFunctionMode):
    r"""A forward pass inside is as always; its gradient goes through gates that are given.

    Args:
        gates: For each gating operation in the order of running: how open its units are, 0 to 1,
            of the shape of its input; or for a max pool the choices and the weight of each, of
            shape (choices, \*output shape) and (choices,), in a tuple.
    """

    def __init__(self, gates: Iterable[Tensor | tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self._gates = iter(gates)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func not in NONLINEAR:
            return func(*args, **kwargs)
        name = NONLINEAR[func].name
        z, rest, named = split_call(args, kwargs)
        kind, given, keywords, inplace = read_call(NONLINEAR[func], rest, named)
        rule = EXCITATION.get(kind)
        if rule is None or rule.read(*given, **keywords) is None:
            return func(*args, **kwargs)
        gate = next(self._gates)
        copy = z.clone()
        output = func(z.detach().clone(), *rest, **named)
        if isinstance(gate, tuple):
            values, *indices = output if isinstance(output, tuple) else (output,)
            passed = _WithGradient.apply(values, _pooled(copy, *gate))
            return (passed, *indices) if indices else passed
        if name in _LEAKY:
            closed = -func(-torch.ones_like(copy), *rest, **named).detach()
            gate = gate.to(closed) + (1 - gate.to(closed)) * closed
        passed = _WithGradient.apply(output, gate.to(copy) * copy)
        return z.copy_(passed) if inplace else passed


class _WithGradient(torch.autograd.Function):
    """The value, to the bit, with the gradient of something else.

    A sum, ``linear + (value - linear).detach()``, would round.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, linear: Tensor) -> Tensor:
        return value.clone()  # itself, it would be a view, which may not be changed in place

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[None, Any]:
        return None, grads[0]


def _pooled(x: Tensor, choices: Tensor, weights: Tensor) -> Tensor:
    """The entries that were chosen, averaged over the choices."""
    dimensions = x.dim() - 2
    plane = x.flatten(-dimensions)
    total = x.new_zeros(choices.shape[1:])
    for choice, weight in zip(choices.to(x.device), weights.to(x), strict=True):
        total = total + weight * plane.gather(-1, choice.flatten(-dimensions)).view(choice.shape)
    return total
