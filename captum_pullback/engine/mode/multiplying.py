"""Running products of what depends on the inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from captum_pullback.engine import graph
from captum_pullback.engine._torch import notes
from captum_pullback.engine.mode.state import State, count_backward, note_left
from captum_pullback.engine.mode.traced import find_traced_factors
from captum_pullback.engine.names import Product
from captum_pullback.engine.products import (
    LOGITS,
    Factors,
    carries,
    find_factors,
    held_product,
    passing,
)

__all__ = ["run_product"]

# What works in place, and the same where it does not.
_OUT_OF_PLACE: dict[Any, Any] = {
    **{
        getattr(Tensor, f"{name}_"): getattr(torch, name)
        for name in ("mul", "multiply", "div", "divide", "true_divide", "addcmul", "addcdiv",
                     "addmm", "addbmm", "baddbmm", "addmv", "addr")
    },
    Tensor.__imul__: torch.mul,
    Tensor.__itruediv__: torch.div,
}  # fmt: skip


def run_product(
    state: State,
    func: Callable[..., Any],
    product: Product,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """A product of what depends on the inputs; NotImplemented for any other."""
    if len(args) > 1 and product.factors == (0, 1) and _is_constant(args[1]):
        return NotImplemented
    if not torch.is_grad_enabled():
        return NotImplemented
    given = list(args)
    names = [name for name in ("other", "mat2", "tensor2", "weight", "vec2") if name in kwargs]
    if len(given) == 1 and names:
        kwargs = dict(kwargs)
        given.append(kwargs.pop(names[0]))
    if product.operands and len(given) == 2 and isinstance(given[1], (list, tuple)):
        given = [given[0], *given[1]]
    if torch.compiler.is_compiling():
        return _run_traced_product(state, func, product, given, kwargs)
    if sum(map(carries, given)) < 2:
        return NotImplemented
    factors = find_factors(product, given)
    if factors is None:
        return NotImplemented
    path = state.module()
    is_attention = any(
        node is not None and graph.operation(node) == "Softmax" for node in factors.gates.values()
    )
    kind = "attention" if factors.held and is_attention else "product"
    rule, temperature = state.resolver(path, kind)
    if rule is None:
        output = func(*given, **kwargs)
        note_left(state, product.name, output, given)
        return output
    nodes = [factors.gates[place] for place in factors.held]
    softens = kind == "attention" and any(n is not None and LOGITS in notes(n) for n in nodes)
    entry = state.record.entry(
        path, product.name, temperature if softens else None, "softened" if softens else "held"
    )
    func, target = _apart(func, product, given, factors)
    if factors.held:
        output = held_product(
            func, given, kwargs, factors, temperature,
            batch=state.batch, record=state.record, lean=state.lean or state.holds_output,
        )  # fmt: skip
    else:
        _share(given, factors, state)
        output = func(*given, **kwargs)
    if target is not None:
        output = target.copy_(output)
    if not factors.held:
        graph.mark_linear(output, given)
    count_backward(state, output, entry, given)
    return output


def _run_traced_product(
    state: State,
    func: Callable[..., Any],
    product: Product,
    given: list[Any],
    kwargs: dict[str, Any],
) -> Any:
    factors = find_traced_factors(product, given)
    if factors is None:
        return NotImplemented
    is_attention = "softmax" in factors.gates.values()
    rule, temperature = state.resolver(
        "", "attention" if factors.held and is_attention else "product"
    )
    if rule is None:
        state.record.count_traced(product.name, None)
        return func(*given, **kwargs)
    if factors.held and is_attention and temperature != 1:
        # Not raised: Dynamo would take an error for a reason to run this part as it is.
        state.record.refuse_traced(
            "attention that is written out always has temperature 1 in a compiled graph: to "
            "change it, use the original module"
        )
        return func(*given, **kwargs)
    state.record.count_traced(product.name, "held")
    func, target = _apart(func, product, given, factors)
    if factors.held:
        for place in factors.held:
            given[place] = given[place].detach()
    else:
        _share(given, factors, state)
    output = func(*given, **kwargs)
    return output if target is None else target.copy_(output)


def _apart(
    func: Callable[..., Any], product: Product, given: list[Any], factors: Factors
) -> tuple[Callable[..., Any], Tensor | None]:
    """The function, and what its result is to be copied into, where it must not write itself.

    That is where it would write into a factor that does not pass its gradient on as it is.
    """
    if not product.inplace or (factors.held and 0 not in factors.held):
        return func, None
    target = given[0]
    given[0] = target.clone()  # of which the other factors' gradients are made
    return _OUT_OF_PLACE[func], target


def _share(given: list[Any], factors: Factors, state: State) -> None:
    """Let each factor pass on an equal share of its gradient."""
    for place in factors.places:
        given[place] = passing(given[place], 1 / len(factors.places), state.record)


def _is_constant(factor: Any) -> bool:
    return type(factor) is nn.Parameter or not isinstance(factor, (Tensor, list, tuple))
