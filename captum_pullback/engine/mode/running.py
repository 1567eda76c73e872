"""Running the calls that have rules."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from captum_pullback.engine._torch import (
    is_in_checkpoint,
    is_transformed,
    is_watched,
    notes,
    unseen,
    unwrapped,
)
from captum_pullback.engine.calls.backward import following, run, run_quick
from captum_pullback.engine.calls.held import Call
from captum_pullback.engine.errors import ForwardModeError, SofteningError
from captum_pullback.engine.mode.inside import ATTENTION, INSIDE, LEAN_ATTENTION
from captum_pullback.engine.mode.lean import LEAN
from captum_pullback.engine.mode.leaning import run_lean
from captum_pullback.engine.mode.state import State, count_backward, detached, innermost, note_left
from captum_pullback.engine.names import Operation, read_call, split_call
from captum_pullback.engine.products import LOGITS, carries
from captum_pullback.engine.rules import is_ours
from captum_pullback.engine.rules.pooling import values_of
from captum_pullback.engine.spread import Spread, Temperature

__all__ = ["NAMES_ARE_LOST", "run_gate", "run_nonlinear"]

NAMES_ARE_LOST = (
    "temperatures and rules per module need the modules' names, which a compiled graph has lost: "
    "use the original module, or one temperature for all gates"
)


def run_gate(
    state: State,
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    operation: Operation,
) -> Any:
    """`run_nonlinear`, in less time for what was met before."""
    gates, x = state.gates, args[0] if args else None
    if not (
        gates
        and type(x) is Tensor
        and x.requires_grad
        and torch.is_grad_enabled()
        and not is_transformed()
        and following.get() is None
        and x.is_floating_point()
        and x.layout is torch.strided
        and not x.is_nested
    ):
        return run_nonlinear(state, func, args, kwargs, operation)
    rest = args[1:]
    try:
        found = gates.get((func, rest, *kwargs.items()))
    except TypeError:
        found = None
    if found is None:
        return run_nonlinear(state, func, args, kwargs, operation)
    held, force, entry, inplace, kind = found
    record = state.record
    with record.lock:
        entry.met += 1
    call = Call(
        lambda z: func(z, *rest, **kwargs), held, force, state.batch, state.once and inplace,
        entry, record=record,
    )  # fmt: skip
    _note_call(state, call, "", kind)
    return run_quick(call, x, inplace=inplace)


def run_nonlinear(
    state: State,
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    operation: Operation,
) -> Any:
    """Run an operation that is not linear, by its rule if it has one."""
    x, rest, named = split_call(args, kwargs)
    if not isinstance(x, Tensor):
        return func(*args, **kwargs)
    kind, given, keywords, inplace = read_call(operation, rest, named)
    module = state.module()
    rule, temperature = state.resolver(module, kind)
    held = None
    if rule is not None and not x.is_complex():  # of complex numbers no gate is known
        if rule.inside or func is ATTENTION:
            inside = INSIDE[func]
            # (Compilers know no identities of rules, and save what they need by themselves.)
            lean = state.lean and not torch.compiler.is_compiling()
            if lean and is_ours(rule) and kwargs.get("need_weights") is False:
                inside = LEAN_ATTENTION if func is ATTENTION else inside
            with state.entered():  # so that its own operations are met
                return inside(*args, **kwargs)
        if state.lean:
            given = tuple(map(detached, given))
            keywords = {key: detached(value) for key, value in keywords.items()}
        held = rule.read(*given, **keywords)
    if held is None or rule is None:
        output = func(*args, **kwargs)
        note_left(state, operation.name, output, (x, *given, *keywords.values()))
        _keep_logits(state, kind, output, x, given, keywords)
        return output
    if state.see is not None and held.softens:
        state.see(module, operation.name, x.detach())
    if not (torch.is_grad_enabled() and (carries(x) or any(map(carries, held.others)))):
        _note_idle(state, x)
        return func(*args, **kwargs)

    # A view of a pool of two dimensions, which may not be written to as it comes.
    finish = _cloned if "pool1d" in operation.name and is_watched() else _as_it_is

    def operation_(z: Tensor, *others: Any) -> Any:
        if not others:
            return finish(func(z, *rest, **named))
        news = {id(old): new for old, new in zip(held.others, others, strict=True)}
        given = (news.get(id(part), part) for part in rest)
        return func(z, *given, **{key: news.get(id(part), part) for key, part in named.items()})

    force = temperature if held.softens else None
    is_number = not isinstance(force, (Tensor, Spread))
    if held.hard and is_number and force == 0:
        return _run_hard(state, func, operation.name, (x, *rest), named)
    if x.is_nested or x.layout != torch.strided:
        layout = "nested" if x.is_nested else str(x.layout)
        dense = "to_padded_tensor(0.0)" if x.is_nested else "to_dense()"
        raise SofteningError(
            f"{operation.name} got a {layout} tensor, whose gates cannot be held: give it a dense "
            f"one, x.{dense}, or keep its derivative by the rule {kind!r}: None"
        )
    if torch.compiler.is_compiling():
        return _run_traced(state, operation.name, operation_, held, x, force, rule.group, inplace)
    if state.keep_copies and not inplace:
        x = x.clone()
    if isinstance(force, Tensor):
        force = force.to(x.device)
        if rule.group != "pool":
            _check_shape(state, force, x, f"input of its {operation.name}")
    as_it_is = held.keeps_forward(force)
    entry = state.record.entry(
        module,
        operation.name,
        None if as_it_is else force,
        "held" if as_it_is else "softened",
    )
    if state.gates is not None and is_ours(rule) and not (held.others or held.run):
        call_of = (func, args[1:], *kwargs.items())
        with contextlib.suppress(TypeError):  # arguments that no table can have
            state.gates[call_of] = (held, force, entry, inplace, kind)
    call = Call(
        operation_, held, force, state.batch, state.once and inplace, entry,
        record=state.record, keeps_all=not state.lean,
    )  # fmt: skip
    _note_call(state, call, module, kind)
    output = run(call, x, inplace=inplace)
    if isinstance(force, Tensor) and rule.group == "pool":
        _check_shape(state, force, values_of(output), f"output of its {operation.name}")
    return output


def _note_call(state: State, call: Call, module: str, kind: Any) -> None:
    """Note a call whose temperature may be changed before its backward pass."""
    record = state.record
    if record.calls is None or call.temperature is None:
        return
    if is_transformed():  # what runs may be a copy of the call
        record.calls = None
    else:
        record.calls.append((call, module, kind))


def _run_hard(
    state: State, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """A hard gate, whose derivative is its gate."""
    if torch.compiler.is_compiling():
        state.record.count_traced(name, 0.0)
        return func(*args, **kwargs)
    entry = state.record.entry(state.module(), name, 0.0, "softened")
    if state.lean and func in LEAN:
        output = run_lean(state, func, args, kwargs)
    elif innermost() is not None:
        # A softening around this one must not make it soft after all.
        with unseen():
            output = func(*args, **kwargs)
    else:
        output = func(*args, **kwargs)
    count_backward(state, output, entry, args)
    return output


def _run_traced(
    state: State,
    name: str,
    call: Callable[[Tensor], Any],
    held: Any,
    x: Tensor,
    temperature: Temperature | None,
    group: str,
    inplace: bool,
) -> Any:
    if state.resolver.needs_names:
        raise SofteningError(NAMES_ARE_LOST)
    state.record.count_traced(name, temperature if held.softens else "held")
    if held.softens and group in state.tensors:
        common, tensor = state.tensors[group]
        if temperature == common:
            temperature = tensor
    return run(Call(call, held, temperature, state.batch), x, inplace=inplace)


def _keep_logits(
    state: State, kind: str, output: Any, x: Tensor, rest: tuple[Any, ...], named: dict[str, Any]
) -> None:
    """Keep a softmax's logits with its node, if attention has a temperature."""
    if kind != "softmax" or torch.compiler.is_compiling():
        return
    rule, temperature = state.resolver(state.module(), "attention")
    node = unwrapped(output).grad_fn
    if rule is None or node is None or temperature == 1:
        return
    dim = named["dim"] if "dim" in named else rest[0] if rest else -1
    notes(node)[LOGITS] = (x.detach(), dim)


def _note_idle(state: State, x: Tensor) -> None:
    _refuse_forward_mode(x)
    state.record.gates_without_gradient = True
    state.record.will_run_again |= is_in_checkpoint()


def _check_shape(state: State, temperature: Tensor, tensor: Tensor, what: str) -> None:
    try:
        shape = torch.broadcast_shapes(temperature.shape, tensor.shape)  # type: ignore[no-untyped-call]
        fits = shape == tensor.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"the temperature of shape {tuple(temperature.shape)} for {state.module()!r} does "
            f"not broadcast against the {what}, {tuple(tensor.shape)}"
        )


def _refuse_forward_mode(x: Any) -> None:
    """Raise for a derivative that is taken forward, with the pass itself."""
    if not isinstance(x, Tensor) or torch.compiler.is_compiling():
        return
    if unpack_dual(x).tangent is not None:  # type: ignore[no-untyped-call]
        raise ForwardModeError


def _as_it_is(output: Any) -> Any:
    return output


def _cloned(output: Any) -> Any:
    return (output[0].clone(), *output[1:]) if isinstance(output, tuple) else output.clone()
