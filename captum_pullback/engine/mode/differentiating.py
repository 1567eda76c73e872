"""Taking gradients: what lies on their way is looked at, and a plain one refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from captum_pullback.engine import graph
from captum_pullback.engine._torch import number_of, without_override
from captum_pullback.engine.errors import SofteningError
from captum_pullback.engine.mode.state import State
from captum_pullback.engine.record import carries_something

__all__ = ["GRADIENTS", "LeaveLeanError", "run_gradient"]


class LeaveLeanError(RuntimeError):
    """The network takes gradients of its own in its forward pass, which lean operations lack."""


GRADIENTS: dict[Any, Any] = {
    function: without_override(function)
    for function in (torch.autograd.grad, torch.autograd.backward, Tensor.backward)
}


def run_gradient(
    state: State, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Take a gradient, and look at what lies on its way; one of the network's own is left alone."""
    record = state.record
    if state.takes_gradient:  # of a part, by a checkpoint or a higher-order operation
        return _run_backward(state, func, args, kwargs)
    if state.is_running:
        if state.lean:
            raise LeaveLeanError
        record.own_gradients += 1
        try:
            return _run_backward(state, func, args, kwargs)
        finally:
            record.own_gradients -= 1
    if record.refused:
        raise SofteningError(record.refused)
    outputs, inputs = _ends(func, args, kwargs)
    if state.keep_graph and func is torch.autograd.grad:
        kwargs = {**kwargs, "retain_graph": True}
    check = not state.differentiates_gradients and any(
        not isinstance(part, nn.Parameter) for part in inputs or outputs
    )
    if check and not record.will_run_again:
        _look(state, outputs, inputs)
    record.ran = False
    state.takes_gradient = True
    try:
        result = _run_backward(state, func, args, kwargs)
    finally:
        state.takes_gradient = False
    record.will_run_again, record.has_gradient = False, True
    # A gradient of this gradient goes another way, on which nothing is met.
    state.differentiates_gradients |= _creates_graph(func, args, kwargs)
    if check and not (record.ran or record.was_traced):
        _refuse_plain(state, outputs, inputs, result)
    return result


def _run_backward(
    state: State, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Take a gradient. Checkpointing runs forward passes in backward passes: hold there."""
    with state.entered():
        return GRADIENTS[func](*args, **kwargs)


def _refuse_plain(
    state: State, outputs: list[Tensor], inputs: list[Tensor] | None, result: Any
) -> None:
    """Raise for a gradient on whose way nothing was softened, unless it is right."""
    if state.may_be_plain:
        return
    if result is not None and not any(map(carries_something, _tensors(result))):
        return  # of what is cut off; as it is
    if inputs is not None and not any(graph.way_between(outputs, part).reached for part in inputs):
        return  # there is no gradient at all
    if state.tolerates_linear and not state.record.will_run_again:
        nodes = graph.nonlinear_between(outputs, inputs, also_seen=True)
        if next(nodes, None) is None:
            return  # of what is linear the gradient is the pullback
    raise SofteningError(state.nothing("lies on the path to what is attributed to"))


def _look(state: State, outputs: list[Tensor], inputs: list[Tensor] | None) -> None:
    """See what lies between outputs and inputs, before the gradient is taken."""
    for output in outputs[:1]:  # parts of one
        call = None if state.holds_output else graph.output_gate(output)
        if call is not None:
            call.derivative = True  # the network's output is no gate
    if not state.lean:
        for node, name in graph.nonlinear_between(outputs, inputs):
            if name == "compiled_function" and state.record.was_traced:
                continue
            state.record.note_unseen(name, number_of(node))
    elif inputs is not None and len(inputs) > 1 and not state.record.was_traced:
        for number, part in enumerate(inputs):
            ways = graph.way_between(outputs, part)
            if ways.reached and not ways.gates:
                raise SofteningError(
                    f"nothing was softened on the path from part {number} of inputs: no gate lies "
                    "between it and the output, so its attribution would be a plain gradient. "
                    "Pass it in additional_forward_args, or attribute to it with "
                    "captum.attr.Saliency"
                )


def _ends(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[Tensor], list[Tensor] | None]:
    """What a gradient is taken of, and with respect to what; None for all leaves."""
    outputs = args[0] if args else kwargs.get("outputs", kwargs.get("tensors"))
    if func is torch.autograd.grad:
        inputs = args[1] if len(args) > 1 else kwargs["inputs"]
    else:
        place = 4 if func is Tensor.backward else 5
        inputs = args[place] if len(args) > place else kwargs.get("inputs")
    given = None if inputs is None else _tensors(inputs)
    return _tensors(outputs), given


def _creates_graph(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    place = 4 if func is torch.autograd.grad else 3
    return bool(args[place] if len(args) > place else kwargs.get("create_graph"))


def _tensors(given: Any) -> list[Tensor]:
    parts = [given] if isinstance(given, Tensor) else list(given or ())
    return [part for part in parts if isinstance(part, Tensor)]
