"""Which gate a factor of a product is made of, by autograd's graph."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor
from torch.autograd.graph import Node

from captum_pullback.engine._torch import saved_value, unwrapped
from captum_pullback.engine.graph.operations import FACTORS, LINEAR, named, operation
from captum_pullback.engine.graph.sources import children, sources_of

__all__ = ["gate_of", "output_gate"]

# What is bounded or a statistic, and so a gate where it multiplies features.
_GATES = named("Softmax Sigmoid Hardsigmoid Rsqrt Reciprocal Std Var Norm LinalgVectorNorm")
# Steps that are taken back from a factor in search of its gate.
_MOST_STEPS = 200


class _Step(NamedTuple):
    """A node on the way from a factor to its gate.

    Attributes:
        node: The node.
        added: Whether a constant was added behind it, as in 1 + tanh.
        mixed: Whether its entries were mixed with weights behind it, as heads are.
    """

    node: Node
    added: bool = False
    mixed: bool = False


def gate_of(root: Node) -> Node | None:
    """The softmax, sigmoid or statistic that a tensor is made of by linear steps alone.

    Only a softmax stays a gate where weights mix its entries; and tanh and erf, of both signs, are
    gates where a constant is added, as in GELU's ``1 + tanh(...)``.
    """
    found: Node | None = None
    stack = [_Step(root)]
    for _ in range(_MOST_STEPS):
        if not stack:
            return found
        node, added, mixed = stack.pop()
        name = operation(node)
        held = getattr(getattr(node, "call", None), "held", None)
        below = [child for child in children(node) if sources_of(child)]
        if _is_gate(node, name, held, added=added):
            if mixed and name != "Softmax":
                return None
            found = found or node
            continue
        if held is not None and held.share is None and not held.linear:
            return None
        if name == "Div":  # a denominator is held as it is
            below = below[:1]
        elif name in FACTORS or (held is not None and held.linear == "mixes"):
            if len(below) > 1:
                return None
            mixed = mixed or name != "Mul"
        elif held is None and name not in LINEAR and name not in ("ClampMin", "Clamp", "Sqrt"):
            return None
        if not below:
            return None
        if name in ("Add", "Sub", "Rsub"):
            added = added or len(below) == 1
        stack += [_Step(child, added, mixed) for child in below]
    return None


def _is_gate(node: Node, name: str, held: Any, *, added: bool) -> bool:
    if held is not None:
        return bool(held.gate or (added and held.signed_gate))
    if name == "Pow":
        return bool(saved_value(node, "exponent", 1) < 0)
    return name in _GATES or (added and name in ("Tanh", "Erf"))


def output_gate(output: Tensor) -> Any:
    """The call of the gate that an output is, up to steps that move it about; None if none."""
    node = unwrapped(output).grad_fn
    for _ in range(_MOST_STEPS):
        if node is None:
            return None
        held = getattr(getattr(node, "call", None), "held", None)
        if held is not None or operation(node) not in LINEAR:
            return getattr(node, "call", None) if held is not None and held.gate else None
        below = children(node)
        node = below[0] if len(below) == 1 else None
    return None
