"""The one autograd function: an operation's own forward pass, and a backward pass of our choice."""

from __future__ import annotations

import contextvars
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from captum_pullback.engine._torch import (
    alive,
    is_transformed,
    is_view,
    is_watched,
    own,
    quiet,
    saved_tensor_hooks,
    undressed,
    unseen,
    version,
    witness,
)
from captum_pullback.engine.calls.held import Call, Context, derivative, may_write
from captum_pullback.engine.errors import (
    CheckpointMismatchError,
    ForwardModeError,
    GateInputChangedError,
)
from captum_pullback.engine.spread import Spread

__all__ = ["following", "run", "run_quick"]

# Checkpointing hands saved tensors back by their order in a second forward pass. If that pass ran
# outside `soften`, other tensors were saved, and z would silently be something else: then what
# should be this empty tensor of a shape that no network has is something else too.
_MARK = (0, 7, 0, 7)


def _save(ctx: Any, inputs: tuple[Any, ...], kept: Iterable[Tensor], *, marks: bool) -> None:
    """Save what a rule's pull needs; ``marks`` where others may replace it."""
    first, copy, temperature, call, *others = inputs
    tensors = (first if copy is None else copy, *others)
    held = call.held
    ctx.call, ctx.reuse = call, call.once and copy is not None
    if held.layout:
        ctx.layout = first.shape, first.stride()
    if copy is not None:
        ctx.mark_dirty(first)
    ctx.set_materialize_grads(False)
    saves = list(tensors) if call.keeps_all else []
    for place in held.saves:
        saves.append(tensors[place])
    ctx.marked = marks
    if not marks:
        ctx.save_for_backward(*saves, *kept)
        return
    if not is_watched():
        seen = [witness(part) for part in saves if type(part) is Tensor]
        ctx.seen = [(part, version(part)) for part in seen]
    mark = torch.empty(_MARK, device=first.device)
    ctx.save_for_backward(*saves, *kept, temperature, mark)


def _saved(ctx: Any) -> tuple[Sequence[Any], Tensor | None]:
    """What was saved, and the temperature, where a compiler or `torch.func` has to be told."""
    try:
        found = ctx.saved_tensors
    except RuntimeError as error:
        if "inplace operation" in str(error):
            raise GateInputChangedError from error
        raise
    if not ctx.marked:
        return found, None
    *saved, temperature, mark = found
    if mark.shape != _MARK:
        raise CheckpointMismatchError
    if any(version(part) != before for part, before in getattr(ctx, "seen", ())):
        raise GateInputChangedError
    return saved, temperature


class _Held(Function):
    """Takes the input, a copy of it where it is written in place, a temperature, and the rest.

    The input comes first, or in-place operations on views go wrong. Compilers and `torch.func`
    want forward and setup_context apart.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        first: Tensor,
        copy: Tensor | None,
        temperature: Tensor | None,
        call: Call,
        *others: Tensor | None,
    ) -> Any:
        run = call.held.run
        return call.operation(first) if run is None else run(call.operation, first, *others)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        beside = output[1:] if isinstance(output, tuple) else ()
        if beside:
            ctx.mark_non_differentiable(*beside)
        _save(ctx, inputs, beside if inputs[3].held.run is not None else (), marks=True)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        saved, temperature = _saved(ctx)
        with unseen():
            return _pulled(ctx, grads[0], saved, temperature)


def _pulled(
    ctx: Any, grad: Tensor | None, saved: Sequence[Any], temperature: Tensor | None
) -> tuple[Tensor | None, ...]:
    """The gradients of what an autograd function of ours was given."""
    call = ctx.call
    held, record = call.held, call.record
    others = len(held.others)
    if grad is None:
        return (None,) * (4 + others)
    needs = ctx.needs_input_grad
    is_own = record is not None and record.own_gradients
    if is_own and held.share is not None:
        return grad, None, None, None
    if call.keeps_all:
        given, saved = saved[: 1 + others], saved[1 + others :]
        if is_own:
            first, *rest = derivative(call, given, (needs[0], *needs[4:]), grad)
            return first, None, None, None, *rest
    reuse = ctx.reuse and may_write(grad)
    if ctx.reuse:
        # Saved-tensor hooks bypass autograd's own check that nothing has changed since.
        if call.used:
            raise GateInputChangedError
        call.used = reuse
    context = Context(call, temperature, (needs[0], *needs[4:]), reuse=reuse)
    if held.layout:
        context.shape, context.strides = ctx.layout
    pulled = held.pull(context, grad, *saved)
    if call.entry is not None:
        call.entry.note(call, context.force, grad)
    if not others:
        return pulled, None, None, None
    return pulled[0], None, None, None, *pulled[1:]


class _Named(_Held):
    """The same, which says why it has no forward mode. Dynamo wants none that says so."""

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise ForwardModeError


class _Quick(_Named):
    """The same in one piece: PyTorch reads the signature anew in each call of one in two pieces."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        first, copy, _, call, *others = inputs
        held = call.held
        run = held.run
        kept: Sequence[Tensor] = ()
        if run is not None:
            output, *kept = run(call.operation, first, *others)
            output = own(output)
        else:
            output = call.operation(first)
            if isinstance(output, tuple):
                output = (own(output[0]), *output[1:])
                ctx.mark_non_differentiable(*output[1:])
            elif copy is None and (type(output) is not Tensor or is_view(output)):
                output = own(output)
        if held.rectifies and isinstance(call.temperature, Spread):
            call.temperature = call.temperature.early(output, call.batch)
        if saved_tensor_hooks(False) is not None:
            _save(ctx, inputs, kept, marks=True)
            return output
        # `_save`, without its calls.
        ctx.marked = ctx.materialize_grads = False
        ctx.call, ctx.reuse = call, False
        if held.layout:
            ctx.layout = first.shape, first.stride()
        if copy is not None:
            ctx.mark_dirty(first)
            ctx.reuse, first = call.once, copy
        tensors = (first, *others) if others else (first,)
        saves = tensors if call.keeps_all else ()
        for place in held.saves:
            saves += (tensors[place],)
        ctx.to_save = (*saves, *kept) if kept else saves
        return output

    setup_context = staticmethod(Function.setup_context)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        # Hooks may run a checkpointed part of the network, which is to be seen.
        saved, temperature = _saved(ctx)
        with quiet():
            return _pulled(ctx, grads[0], saved, temperature)


_quick = undressed(_Quick)


#: What follows each held call of the running context beside the network, if anything does.
following: contextvars.ContextVar[Any] = contextvars.ContextVar(
    "captum_pullback.following", default=None
)


def run_quick(call: Call, x: Tensor, *, inplace: bool = False) -> Any:
    """`run`, where neither a compiler nor `torch.func` is at work, and nothing follows."""
    copy, others = x.clone() if inplace else None, call.held.others
    if others:
        return _Quick.apply(x, copy, None, call, *others)
    return _quick(alive(x), copy, None, call)


def run(call: Call, x: Tensor, *, inplace: bool = False) -> Any:
    """Run an operation with its own forward pass, and the backward pass of a rule.

    Args:
        call: The operation, and what is held of it.
        x: Its input.
        inplace: Whether the operation writes its result into ``x``, of which a copy is then kept.

    Returns:
        What the operation returns, bit for bit.
    """
    if not torch.compiler.is_compiling():
        if (follower := following.get()) is not None:
            return follower.held(call, x, inplace)
        if not is_transformed():
            return run_quick(call, x, inplace=inplace)
    temperature = call.temperature if isinstance(call.temperature, Tensor) else None
    held = call.held
    function = _Held if torch.compiler.is_compiling() else _Named
    if not inplace:
        output = function.apply(x, None, temperature, call, *held.others)
        return output[0] if held.run is not None else output
    # Dynamo and torch.func have no mark_dirty; the compiler's functionalization makes these
    # copies nothing.
    operation = call.operation
    call = Call(
        lambda z, *others: operation(z.clone(), *others), held, call.temperature, call.batch,
        entry=call.entry, record=call.record, keeps_all=call.keeps_all,
    )  # fmt: skip
    return x.copy_(function.apply(x.clone(), None, temperature, call, *held.others))
