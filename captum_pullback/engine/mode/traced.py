"""Gates among factors while a compiler traces, when there is no graph to read.

`graph` reads from autograd what a factor is made of. Under `torch.compile` that graph does not
exist yet, so what is computed is marked instead: what depends on parameters alone, and what is a
gate or was made of one by linear steps. The marks are attributes of the compiler's stand-ins for
tensors.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_pullback.engine.names import nonlinear_of, product_of, spellings
from captum_pullback.engine.products import Factors

__all__ = ["find_traced_factors", "mark_traced"]

# What is bounded or a statistic, and so a gate where it multiplies features.
_GATE_KINDS = frozenset(("softmax", "sigmoid", "hardsigmoid", "rsqrt", "reciprocal", "std", "var",
                         "norm", "vector_norm"))  # fmt: skip
_MOVING = (
    "view", "reshape", "view_as", "reshape_as", "transpose", "permute", "t", "swapaxes",
    "swapdims", "movedim", "unsqueeze", "squeeze", "expand", "expand_as", "broadcast_to",
    "contiguous", "to", "type_as", "type", "float", "half", "double", "bfloat16", "clone",
    "flatten", "unflatten", "narrow", "select", "index_select", "__getitem__", "chunk", "split",
    "unbind", "repeat", "repeat_interleave", "roll", "flip", "tile", "mean", "sum", "add", "sub",
    "neg", "rsub", "__add__", "__radd__", "__sub__", "__rsub__", "__neg__", "masked_fill",
    "dropout", "cat", "concat", "stack", "clamp_min", "clamp", "sqrt", "interpolate", "pad",
)  # fmt: skip
# A dict, since Dynamo does not look into sets of functions.
_MOVERS = dict.fromkeys(
    [
        *(function for name in _MOVING for function in spellings(name)),
        F.dropout,
        F.interpolate,
        F.pad,
        *(getattr(Tensor, name).__get__ for name in ("T", "mT", "H", "mH")),
    ]
)


def _leaves(args: Iterable[Any]) -> list[Tensor]:
    found = []
    for part in args:
        if isinstance(part, Tensor):
            found.append(part)
        elif isinstance(part, (tuple, list)):
            found += [inner for inner in part if isinstance(inner, Tensor)]
    return found


def _is_fixed(tensor: Tensor) -> bool:
    """Whether a tensor depends on parameters alone."""
    return (
        not tensor.requires_grad
        or isinstance(tensor, nn.Parameter)
        or hasattr(tensor, "_pullback_fixed")
    )


def mark_traced(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """Mark what a function has given while a compiler traces it."""
    given = _leaves((*args, *kwargs.values()))
    free = [part for part in given if not _is_fixed(part)]
    gate = ""
    operation = nonlinear_of(func)
    if operation is not None:
        kind = operation.kind
        if kind in _GATE_KINDS or (
            kind == "pow" and len(args) > 1 and isinstance(args[1], (int, float)) and args[1] < 0
        ):
            gate = kind
    if not gate and free and _carries_on(func, args, free):
        gates = [getattr(part, "_pullback_gate", "") for part in free]
        gate = gates[0] if all(gates) else ""
    for part in _leaves(output if isinstance(output, (tuple, list)) else (output,)):
        if not part.requires_grad:
            continue
        if not free:
            part._pullback_fixed = True  # type: ignore[attr-defined]
        elif gate:
            part._pullback_gate = gate  # type: ignore[attr-defined]


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _moves(func: Any) -> bool:
    # Dynamo's own look into a dict misses functions that PyTorch wraps.
    return func in _MOVERS


def _carries_on(func: Any, args: tuple[Any, ...], free: list[Tensor]) -> bool:
    """Whether a function passes a gate on as it is, up to linear steps."""
    if _moves(func):
        return True
    product = product_of(func)
    if product is None:
        return False
    if product.divides:  # a denominator is held as it is
        return bool(args) and free[0] is args[0]
    return len(free) == 1


def find_traced_factors(product: Any, args: list[Any]) -> Factors | None:
    """The factors that depend on the inputs, if more than one; a gate's value is its kind."""
    among = range(len(args)) if product.operands else product.factors
    places = [
        place
        for place in among
        if place < len(args) and isinstance(args[place], Tensor) and not _is_fixed(args[place])
    ]
    if len(places) < 2:
        return None
    if product.divides:
        return Factors(places, {places[1]: "quotient"})
    gates = {
        place: args[place]._pullback_gate
        for place in places
        if hasattr(args[place], "_pullback_gate")
    }
    return Factors(places, gates)
