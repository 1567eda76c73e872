r"""The gates of one forward pass: which are open; and a pass through given gates.

A path through a network is a choice of gates. If gates are fixed from outside, for instance by
their averages over training, the network is linear in its input: this is the fixed-path machine of
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

from captum_pullback.engine.calls.backward import run
from captum_pullback.engine.calls.held import Call, Context, Held
from captum_pullback.engine.errors import SofteningError
from captum_pullback.engine.models import on_copies
from captum_pullback.engine.names import NONLINEAR, read_call, split_call
from captum_pullback.engine.observer import Observer
from captum_pullback.engine.rules import EXCITATION, SEMANTIC
from captum_pullback.engine.softening import watch

__all__ = ["GRADED", "WATCHED", "FixedPaths", "Gate", "read_gates"]

#: Gates that open by degrees, half open at 0: GELU's ``Phi(z)``, SiLU's ``sigmoid(z)`` and
#: hardswish's ``relu6(z + 3) / 6``.
GRADED = frozenset(("gelu", "silu", "hardswish"))
#: The rules of the gates that are watched.
WATCHED = {**EXCITATION, **{kind: SEMANTIC[kind] for kind in GRADED}}

# What a closed gate of these passes on: not zero, but its value at -1, negated.
_LEAKY = frozenset(("leaky_relu", "prelu", "rrelu"))
_OPEN_ABOVE_ZERO = _LEAKY | {"relu"} | GRADED


@dataclass(frozen=True)
class Gate:
    """One gating operation, as one forward pass ran it.

    Attributes:
        name: The module's name; with " (2)" and so on where it ran more gates than one.
        module: The module's name alone, as in temperatures.
        operation: PyTorch's name for it.
        z: The gate's input, of shape (N, ...); None unless it was requested.
        open: For a gate of single units, whether each is open, a graded one more than half: a
            bool tensor like z.
        choice: For a max pool, the place in the plane of the entry that passed.
    """

    name: str
    module: str
    operation: str
    z: Tensor | None
    open: Tensor | None = None
    choice: Tensor | None = None


class _Calls(Observer):
    """Remembers the call of the gate that `watch` will see."""

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
    """Run a forward pass; return its gates, in the order in which they ran, and the output.

    Args:
        model: The network, in the mode in which it is to be watched.
        inputs: Shape (N, ...).
        keep_z: Whether to keep the gates' inputs.

    Raises:
        SofteningError: No gate ran where it can be seen.
    """
    gates: list[Gate] = []
    names: dict[str, int] = {}
    calls = _Calls()

    def see(module: str, operation: str, z: Tensor) -> None:
        names[module] = count = names.get(module, 0) + 1
        name = (module or "(model)") + (f" ({count})" if count > 1 else "")
        kept = z.clone() if keep_z else None
        if "pool" in operation:
            gates.append(Gate(name, module, operation, kept, choice=_choice(z, *calls.call)))
        else:
            gates.append(Gate(name, module, operation, kept, open=_open(operation, z, *calls.call)))

    with torch.no_grad(), watch(model, see, WATCHED), calls:
        output = on_copies(model, inputs)
    if not gates:
        raise SofteningError(
            "no gate was seen: no ReLU, GELU, SiLU, hardswish or max pool ran, or they ran inside "
            "compiled or scripted code"
        )
    return gates, output


def _open(operation: str, z: Tensor, func: Any, rest: Any, named: Any) -> Tensor:
    if operation in _OPEN_ABOVE_ZERO:
        return z > 0
    # ReLU6, hardtanh, clamp: a gate is open where they leave the input unchanged.
    left_alone: Tensor = func(z.clone(), *rest, **named) == z
    return left_alone


def _choice(z: Tensor, func: Any, rest: Any, named: Any) -> Tensor:
    name = NONLINEAR[func].name
    with_indices: Any = getattr(F, f"{name}_with_indices")
    named = {key: value for key, value in named.items() if key != "return_indices"}
    indices: Tensor = with_indices(z, *rest, **named)[1]
    return indices


class FixedPaths(TorchFunctionMode):
    r"""A mode that leaves the forward pass unchanged; its gradient goes through given gates.

    Args:
        gates: For each gating operation, in the order in which they run: how open its units are,
            0 to 1, of the shape of its input; or for a max pool the choices and the weight of
            each, of shape (choices, \*output shape) and (choices,), in a tuple.
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
        rule = WATCHED.get(kind)
        if rule is None or rule.read(*given, **keywords) is None:
            return func(*args, **kwargs)
        gate = next(self._gates)
        if isinstance(gate, tuple):
            pull = _to_choices(*gate)
        else:
            closed: Any = 0.0
            if name in _LEAKY:
                closed = -func(-torch.ones_like(z), *rest, **named).detach()
            pull = _through(gate, closed)
        held = Held(pull, saves=(), layout=True, softens=False)
        output: Tensor = run(Call(lambda x: func(x, *rest, **named), held), z, inplace=inplace)
        return output


def _through(gate: Tensor, closed: Any) -> Callable[[Context, Tensor], Tensor]:
    """Return the backward pass of gates that are partly open, and of what closed ones pass on."""

    def pull(context: Context, grad: Tensor) -> Tensor:
        opened = gate.to(grad)
        pulled: Tensor = grad * (opened + (1 - opened) * closed)
        return pulled

    return pull


def _to_choices(choices: Tensor, weights: Tensor) -> Callable[[Context, Tensor], Tensor]:
    """Return the backward pass of a max pool, averaged over the entries that were chosen."""

    def pull(context: Context, grad: Tensor) -> Tensor:
        assert context.shape is not None  # the rule asks for it
        dimensions = len(context.shape) - 2
        pulled = grad.new_zeros(context.shape).flatten(-dimensions)
        for choice, weight in zip(choices.to(grad.device), weights.to(grad), strict=True):
            share = (weight * grad).flatten(-dimensions)
            pulled = pulled.scatter_add(-1, choice.flatten(-dimensions), share)
        result: Tensor = pulled.view(context.shape)
        return result

    return pull
