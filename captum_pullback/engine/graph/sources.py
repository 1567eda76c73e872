"""What a tensor depends on, by autograd's graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn
from torch.autograd.graph import Node

from captum_pullback.engine._torch import notes, unwrapped
from captum_pullback.engine.graph.operations import operation

__all__ = ["children", "mark_source", "share", "shares_a_leaf", "sources", "sources_of", "walk"]

_SOURCES = "captum_pullback.sources"


def share(node: Node | None) -> float | None:
    """Which share of its gradient a factor passes on; None where that is nobody's doing."""
    held = getattr(getattr(node, "call", None), "held", None)
    return None if held is None else held.share


def children(node: Node) -> list[Node]:
    """What a node passes gradients on to: a held gate to nothing."""
    if share(node) == 0:
        return []
    return [child for child, _ in node.next_functions if child is not None]


def walk(roots: Iterable[Node]) -> list[Node]:
    """All nodes, each after those that it passes gradients on to."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack = [(root, False) for root in roots]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(child, False) for child in children(node)]
    return order


def sources(tensor: Tensor) -> frozenset[int]:
    """The leaves that a tensor depends on, other than parameters; and what was embedded."""
    tensor = unwrapped(tensor)
    node = tensor.grad_fn
    if node is None:
        return _leaf(tensor) if tensor.requires_grad else frozenset()
    return sources_of(node)


def _leaf(tensor: Tensor) -> frozenset[int]:
    return frozenset() if isinstance(tensor, nn.Parameter) else frozenset((id(tensor),))


def mark_source(tensor: Tensor) -> None:
    """Let a tensor be one of those that others depend on: what a layer gives, for one."""
    node = unwrapped(tensor).grad_fn
    if node is not None:
        notes(node)[_SOURCES] = frozenset((id(node),))


def sources_of(root: Node) -> frozenset[int]:
    """The same of the tensor that a node made."""
    # Kept with the nodes themselves, which live as long as the graph and no longer.
    stack = [root]
    while stack:
        node = stack[-1]
        if _SOURCES in notes(node):
            stack.pop()
            continue
        below = children(node)
        missing = [child for child in below if _SOURCES not in notes(child)]
        if missing:
            stack += missing
            continue
        notes(node)[_SOURCES] = _own_sources(node).union(
            *(notes(child)[_SOURCES] for child in below)
        )
        stack.pop()
    found: frozenset[int] = notes(root)[_SOURCES]
    return found


def _own_sources(node: Node) -> frozenset[int]:
    variable = getattr(node, "variable", None)
    if variable is not None:
        return _leaf(variable)
    return frozenset((id(node),)) if operation(node) == "Embedding" else frozenset()


def shares_a_leaf(factors: Sequence[Tensor]) -> bool:
    """Whether two of these tensors depend on one leaf that is no parameter."""
    met: frozenset[int] = frozenset()
    for factor in factors:
        found = sources(factor)
        if met & found:
            return True
        met |= found
    return False
