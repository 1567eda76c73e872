r"""Products of things that depend on one input: which factor is held.

A factor that is a gate (a softmax, a sigmoid, a statistic such as one over a standard deviation)
is held, and the gradient goes to the other one; a quotient holds its denominator. Of n factors
none of which is a gate, each passes on 1/n of its gradient: their equal share in the product, its
Shapley value. In each case :math:`f(x) = \langle W, x \rangle + b` stays exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node

from captum_pullback.engine._torch import is_transformed, notes, unwrapped
from captum_pullback.engine.calls.backward import run
from captum_pullback.engine.calls.held import Call, Context, Held
from captum_pullback.engine.graph import gate_of, operation, shares_a_leaf, sources
from captum_pullback.engine.names import Product
from captum_pullback.engine.rules.attention import softened
from captum_pullback.engine.spread import Spread, Temperature

__all__ = [
    "LOGITS", "Factors", "carries", "find_factors", "held_product", "is_share", "passing"
]  # fmt: skip

#: Where a softmax's node keeps its logits and dimension, if weights of another temperature are
#: wanted.
LOGITS = "captum_pullback.logits"


def carries(tensor: Any) -> bool:
    """Whether a gradient goes through a tensor."""
    if not isinstance(tensor, Tensor):
        return False
    return tensor.requires_grad or (is_transformed() and unwrapped(tensor).requires_grad)


def _may_depend(factor: Any) -> bool:
    """Whether a factor may depend on the network's inputs."""
    return carries(factor) and type(factor) is not nn.Parameter


class Factors:
    """The factors of one product that depend on the network's inputs.

    Attributes:
        places: Where among the arguments they are.
        gates: Those of them that are gates, with the node of the gate; while a compiler traces,
            when there are no nodes, with its kind.
    """

    def __init__(self, places: list[int], gates: dict[int, Any]) -> None:
        self.places, self.gates = places, gates

    @property
    def held(self) -> list[int]:
        """Those that are held: if all are gates, none."""
        return list(self.gates) if len(self.gates) < len(self.places) else []


def find_factors(product: Product, args: Sequence[Any]) -> Factors | None:
    """The factors, if more than one depends on the same input.

    Args:
        product: What multiplies.
        args: Its positional arguments.
    """
    places = (
        [place for place, part in enumerate(args) if _may_depend(part)]
        if product.operands
        else [place for place in product.factors if place < len(args) and _may_depend(args[place])]
    )
    if len(places) < 2:
        return None
    if product.divides:
        if not all(sources(args[place]) for place in places):
            return None
        return Factors(places, {places[1]: None})
    if not shares_a_leaf([args[place] for place in places]):
        return None
    gates: dict[int, Node | None] = {}
    for place in places:
        node = unwrapped(args[place]).grad_fn
        gate = None if node is None else gate_of(node)
        if gate is not None:
            gates[place] = gate
    return Factors(places, gates)


class _Share:
    """The push of a factor that passes on a share."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, context: Context, moved: tuple[Tensor, ...], *_: Tensor) -> Tensor:
        return moved[0] * self.share


def is_share(tensor: Tensor) -> bool:
    """Whether a tensor is a factor that passes on a share, as `passing` gave it."""
    held = getattr(getattr(tensor.grad_fn, "call", None), "held", None)
    return isinstance(getattr(held, "push", None), _Share)


def passing(factor: Tensor, share: float, record: Any) -> Tensor:
    """A factor that passes on a share of its gradient; that of 0 is held."""

    def pull(context: Context, grad: Tensor, *_: Tensor) -> Tensor | None:
        return grad * share if share else None

    held = Held(pull, saves=(), softens=False, share=share, push=_Share(share))
    output: Tensor = run(Call(lambda x: x.view_as(x), held, record=record), factor)
    return output


def held_product(
    func: Callable[..., Any],
    args: list[Any],
    kwargs: dict[str, Any],
    factors: Factors,
    temperature: Temperature,
    *,
    batch: int | None,
    record: Any,
    lean: bool,
) -> Any:
    """The product whose gates are held; softmaxes among them have a temperature.

    Where all is kept (not ``lean``), gradients that the network takes itself go through the gates.
    """
    nodes = [factors.gates[place] for place in factors.held]
    soft = {
        place: twin
        for place, node in zip(factors.held, nodes, strict=True)
        if (twin := _twin(args[place], node, temperature, batch)) is not None
    }
    for place in factors.held:
        if lean or is_transformed():
            args[place] = args[place].detach()
        elif place not in soft:
            args[place] = passing(args[place], 0, record)
    if not soft:
        return func(*args, **kwargs)
    (free,) = [place for place in factors.places if place not in factors.held]

    def product(x: Tensor, *gates: Any) -> Any:
        given = list(args)
        given[free] = x
        for place, gate in zip(soft, gates, strict=False):
            given[place] = gate
        return func(*given, **kwargs)

    def pull(context: Context, grad: Tensor, x: Tensor, *twins: Tensor) -> tuple[Any, ...]:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            output = product(leaf, *twins)
            (pulled,) = torch.autograd.grad(output, leaf, grad, create_graph=grad.requires_grad)
        return pulled, *(None for _ in (*soft, *soft))

    def forward(operation: Callable[..., Any], x: Tensor, *given: Tensor) -> tuple[Any, ...]:
        return (operation(x, *given[: len(soft)]),)

    others = (*(args[place] for place in soft), *soft.values())
    places = (0, *range(1 + len(soft), 1 + 2 * len(soft)))
    held = Held(pull, others, forward, places)
    return run(Call(product, held, record=record, keeps_all=not lean), args[free])


def _twin(
    gate: Tensor, node: Node | None, temperature: Temperature, batch: int | None
) -> Tensor | None:
    """What a factor would be if its softmax had this temperature; None where it has it already.

    Between the two are linear steps alone, which autograd knows the transpose of; the transpose
    of the transpose is wanted.
    """
    kept = None if node is None or operation(node) != "Softmax" else notes(node).get(LOGITS)
    if kept is None or node is None:
        return None
    logits, dim = kept
    if isinstance(temperature, Spread):
        temperature = temperature.of_logits([logits], batch)
    weights = softened(logits, temperature, dim)
    if unwrapped(gate).grad_fn is node:
        return weights.to(gate.dtype)
    with torch.enable_grad():
        probe = torch.zeros_like(gate, requires_grad=True)
        (back,) = torch.autograd.grad(gate, GradientEdge(node, 0), probe, create_graph=True)
        (moved,) = torch.autograd.grad(back, probe, weights.to(back.dtype))
    return moved
