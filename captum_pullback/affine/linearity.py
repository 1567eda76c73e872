"""Is a computation piecewise linear in its inputs? Read from the graph that autograd recorded.

A list of what is linear, not of what is not: an operation that nobody thought of is named, not
passed over. What two dependent factors make (``x * x``, attention) is no more linear than a GELU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import Node

from captum_pullback.engine._torch import input_shapes, saved_value
from captum_pullback.engine.graph import (
    BATCH_NORM,
    CONSTANT,
    FACTORS,
    LINEAR,
    PIECEWISE,
    is_linear,
    operation,
    readable,
    walk,
)
from captum_pullback.engine.names import DROPOUTS, trains
from captum_pullback.engine.observer import Observer

__all__ = ["CORNERED", "Graph", "RandomnessWatch"]


#: Kinds of gates that are piecewise linear, each piece with autograd's derivative.
CORNERED = frozenset(
    ("abs", "amax", "amin", "aminmax", "clamp", "clamp_max", "cummax", "cummin", "fmax", "fmin",
     "hardshrink", "hardsigmoid", "kthvalue", "leaky_relu", "max", "max_pool", "maximum", "median",
     "min", "minimum", "prelu", "relu", "relu6", "rrelu", "softshrink", "sort", "threshold", "topk",
     "where")
)  # fmt: skip


class Graph:
    """What autograd recorded between some inputs and an output.

    Args:
        output: What was computed, with a gradient.
        leaves: The inputs, leaves that require gradients.

    Attributes:
        nonlinear: What is not piecewise linear in the inputs, by PyTorch's names of it.
        couples: Whether examples of a batch see each other (BatchNorm in training mode).
        largest: Bytes of the largest tensor that was computed from the inputs.
    """

    def __init__(self, output: Tensor, leaves: Sequence[Tensor]) -> None:
        self.nonlinear: list[str] = []
        self.couples = False
        self.largest = max(leaf.numel() * leaf.element_size() for leaf in leaves)
        self._leaves = {id(leaf) for leaf in leaves}
        self._depends: dict[Node | None, bool] = {None: False}
        if output.grad_fn is not None:
            for node in walk([output.grad_fn]):
                self._visit(node)

    def _visit(self, node: Node) -> None:
        variable = getattr(node, "variable", None)
        depends = [self._depends.get(child, False) for child, _ in node.next_functions]
        self._depends[node] = any(depends) or id(variable) in self._leaves
        if not any(depends):
            return
        for shape, dtype in input_shapes(node):
            self.largest = max(self.largest, shape.numel() * dtype.itemsize)
        if hasattr(node, "call") or is_linear(node):  # held
            return
        name = operation(node)
        if name in BATCH_NORM:
            if any(depends[1:]):
                self._name("batch_norm with weights that depend on the inputs")
            if saved_value(node, "training", True):
                self.couples = True
                self._name("BatchNorm in training mode")
        elif name in FACTORS:
            if sum(depends[factor] for factor in FACTORS[name] if factor < len(depends)) > 1:
                self._name(f"{readable(name)} of two things that both depend on the inputs")
        elif name in CONSTANT:
            if any(depends[2 if name == "Lerp" else 1 :]):
                self._name(f"{readable(name)} by something that depends on the inputs")
        elif name not in LINEAR and name not in PIECEWISE:
            self._name(readable(name))

    def _name(self, what: str) -> None:
        if what not in self.nonlinear:
            self.nonlinear.append(what)


class RandomnessWatch(Observer):
    """Notes what a graph does not tell: what drops or draws at random.

    Attributes:
        random: Operations that drew random numbers for the forward pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self.random: list[str] = []

    def observe(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Note what is random."""
        if func in DROPOUTS:
            if trains(func, args, kwargs):
                self.random.append(f"{DROPOUTS[func].name} in training mode")
        elif func is F.rrelu and (args[3:4] == (True,) or kwargs.get("training")):
            self.random.append("rrelu in training mode")
