"""What lies between an output and what is attributed to, by autograd's graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.autograd.graph import Node

from captum_pullback.engine._torch import notes, saved_value, unwrapped
from captum_pullback.engine.graph.operations import (
    BATCH_NORM,
    CONSTANT,
    FACTORS,
    LINEAR,
    operation,
    readable,
)
from captum_pullback.engine.graph.sources import children, sources_of, walk

__all__ = [
    "Way", "is_linear", "mark_gate", "mark_linear", "mark_seen", "nonlinear_between", "way_between",
]  # fmt: skip

_SEEN, _GATE, _LINEAR = (f"captum_pullback.{name}" for name in ("seen", "gate", "linear"))


def mark_seen(output: Any, inputs: Iterable[Any]) -> None:
    """Note that what was just computed is in the record, however many nodes it takes."""
    _mark(output, inputs, _SEEN)


def mark_linear(output: Any, inputs: Iterable[Any]) -> None:
    """Note that what was just computed is linear, which its nodes do not tell."""
    _mark(output, inputs, _LINEAR)


def is_linear(node: Node) -> bool:
    """Whether a node was noted as linear."""
    return _LINEAR in notes(node)


def _mark(output: Any, inputs: Iterable[Any], what: str) -> None:
    if not isinstance(output, Tensor):
        return
    root = unwrapped(output).grad_fn
    given = {unwrapped(part).grad_fn for part in inputs if isinstance(part, Tensor)}
    stack = [] if root is None else [root]
    while stack:
        node = stack.pop()
        # A node of an input that was written to is the output's own.
        if node is not root and (node in given or hasattr(node, "call")):
            continue
        if what in notes(node):
            continue
        notes(node)[what] = True
        if root not in given:
            stack += children(node)


def nonlinear_between(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor] | None, *, also_seen: bool = False
) -> Iterator[tuple[Node, str]]:
    """What is not linear on the way from outputs to inputs, as far as it has no rule.

    Args:
        outputs: Of which a gradient is taken.
        inputs: With respect to which; None for all leaves that are no parameters.
        also_seen: Whether to give also those that are in the record already.

    Yields:
        The nodes with the names of their operations.
    """
    for node, leads in _between(outputs, inputs):
        kept = notes(node)
        if hasattr(node, "call") or _LINEAR in kept or (not also_seen and _SEEN in kept):
            continue
        name = operation(node)
        if name in LINEAR or name == "Embedding":
            continue
        if name in BATCH_NORM:
            if saved_value(node, "training", True):
                yield node, "batch_norm in training mode"
        elif name in FACTORS:
            factors = [node.next_functions[place][0] for place in FACTORS[name]
                       if place < len(node.next_functions)]  # fmt: skip
            if sum(child in leads for child in factors) > 1:
                yield node, readable(name)
        elif name in CONSTANT:
            if any(child in leads for child, _ in node.next_functions[1:]):
                yield node, readable(name)
        else:
            yield node, readable(name)


def _between(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor] | None
) -> Iterator[tuple[Node, set[Node]]]:
    roots = [node for out in outputs if (node := unwrapped(out).grad_fn) is not None]
    targets = None if inputs is None else {id(part) for part in inputs}
    edges = None if inputs is None else {part.grad_fn for part in inputs if part.grad_fn}
    leads: set[Node] = set()
    for node in walk(roots):
        variable = getattr(node, "variable", None)
        if targets is None:
            reaches = bool(sources_of(node))
        else:
            own = id(variable) in targets if variable is not None else node in (edges or ())
            reaches = own or any(child in leads for child in children(node))
        if reaches:
            leads.add(node)
            # An input that is no leaf: what made it lies before it, not on the way.
            if edges is None or node not in edges:
                yield node, leads


class Way(NamedTuple):
    """Whether an output depends on an input, and whether gates lie between them."""

    reached: bool
    gates: bool


def way_between(outputs: Sequence[Tensor], part: Tensor) -> Way:
    """What lies between outputs and one of the inputs."""
    reached = gates = False
    for node, _ in _between(outputs, [part]):
        held = getattr(getattr(node, "call", None), "entry", None) is not None
        reached, gates = True, gates or held or _GATE in notes(node)
    return Way(reached, gates)


def mark_gate(node: Node, done: str) -> None:
    """Note that a node of PyTorch's own is a gate that is held, or hard as it was asked for."""
    notes(node)[_SEEN] = True
    if done != "derivative kept":
        notes(node)[_GATE] = True
