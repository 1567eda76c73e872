"""The one autograd function: an operation's own forward pass, and a backward pass of our choice."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from captum_pullback.engine._torch import (
    alive,
    has_batched_gradient,
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
from captum_pullback.engine.errors import (
    CheckpointMismatchError,
    ForwardModeError,
    GateInputChangedError,
    SofteningError,
)
from captum_pullback.engine.spread import Spread, Temperature

__all__ = [
    "Call",
    "CheckpointMismatchError",
    "Context",
    "ForwardModeError",
    "GateInputChangedError",
    "Held",
    "SofteningError",
    "derivative",
    "following",
    "may_write",
    "run",
    "run_quick",
]

Gradients = Tensor | None | tuple[Tensor | None, ...]


class Held(NamedTuple):
    """What is held of one call of an operation, and how gradients go back through it.

    Attributes:
        pull: ``pull(context, gradient, *saved)`` gives the gradient of the input; or, where there
            are ``others``, those of the input and of each of them, in a tuple.
        others: The call's other tensors, which ``run`` takes after the input.
        run: ``run(operation, input, *others)`` gives the output and what else is to be kept of
            the forward pass, in a tuple. None runs the operation on the input alone.
        saves: Which of the input (0) and the others (1, 2, ...) ``pull`` needs. It gets these, and
            then what ``run`` has kept.
        layout: Whether ``pull`` needs the input's shape and strides (``context.shape``).
        softens: Whether the temperature counts here; if not, the gate is held as it is.
        gate: Whether the output is a gate for what it multiplies.
        signed_gate: Whether it is one once a constant is added, as in ``1 + tanh(z)``.
        hard: Whether at temperature 0 it is PyTorch's own derivative.
        rectifies: Whether the output is max(z, 0) of the input z.
        neutral: The temperature at which the gate is held as it is.
        share: Of an identity, which share of its gradient it passes on.
        linear: "moves" or "mixes", if it is linear, and does no more to the entries of its input
            than to move them about, or mixes them with weights.
        push: ``push(context, moved, *saved)`` gives what the operation would give for another
            input and other tensors, ``moved``, with what is held held as it is; without a
            temperature. None where only ``pull`` says it.
    """

    pull: Callable[..., Gradients]
    others: tuple[Tensor | None, ...] = ()
    run: Callable[..., tuple[Any, ...]] | None = None
    saves: tuple[int, ...] = (0,)
    layout: bool = False
    softens: bool = True
    gate: bool = False
    signed_gate: bool = False
    hard: bool = False
    rectifies: bool = False
    neutral: float = 0.0
    share: float | None = None
    linear: str = ""
    push: Callable[..., Tensor] | None = None

    def keeps_forward(self, temperature: Temperature | None) -> bool:
        """Whether at this temperature what is held is what the forward pass multiplies by."""
        if not self.softens or temperature is None:
            return True
        return not isinstance(temperature, (Tensor, Spread)) and temperature == self.neutral


@dataclass
class Call:
    """One call of an operation.

    Attributes:
        operation: The call as a function of its input, and of what replaces ``held.others`` where
            these are given too; it may work in place.
        held: What is held of it.
        temperature: In units of the input; None where it is no gate.
        batch: The number of examples, where it is known.
        once: Whether the gradient is going to be taken once, after which memory may be used anew.
        entry: Of the record, which is told when the backward pass has come here.
        derivative: Whether its derivative is kept after all, since its output is the network's.
        record: Which knows when the network takes gradients itself, which are plain ones.
        keeps_all: Whether the input and the others are kept for these, whatever the rule
            needs.
    """

    operation: Callable[..., Any]
    held: Held
    temperature: Temperature | None = None
    batch: int | None = None
    once: bool = False
    entry: Any = None
    derivative: bool = False
    record: Any = None
    keeps_all: bool = False
    used: bool = False
    counted: bool = False


class Context:
    """What a rule may ask for in a backward pass.

    Attributes:
        operation: The original call, as a function of its input alone. It may work in place.
        wanted: For the input and each of the other tensors, whether a gradient is wanted.
        reuse: Whether the memory of the first saved tensor may be used for the result.
        shape: The input's shape; None unless it was asked for.
        strides: The input's strides.
        call: What is being pulled back.
        force: The temperature in force.
        tensor: The temperature, where it is a tensor.
    """

    __slots__ = (
        "call", "force", "operation", "reuse", "shape", "strides", "tensor", "wanted",
    )  # fmt: skip

    def __init__(
        self, call: Call, tensor: Tensor | None, wanted: tuple[bool, ...], *, reuse: bool
    ) -> None:
        self.operation = call.operation
        self.wanted = wanted
        self.reuse = reuse
        self.shape: torch.Size | None = None
        self.strides: tuple[int, ...] = ()
        self.call = call
        self.tensor = tensor
        self.force: Any = call.temperature if tensor is None else tensor

    def temperature(
        self, z: Tensor, *, compared: bool = False, spare: Tensor | None = None
    ) -> float | Tensor:
        """The temperature, as a number or as a tensor that broadcasts against z.

        Args:
            z: What it is in units of: of shape (N, ...), if it is the spread of each example.
            compared: Whether its values are compared with each other, and not with 0.
            spare: Memory of z's shape and type that may be written to.
        """
        given = self.force
        if isinstance(given, Spread):
            given = given.of(z, self.call.batch, compared=compared, spare=spare)
            self.force = given
        return 0.0 if given is None else given

    def temperature_of_logits(self, pieces: Iterable[Tensor]) -> float | Tensor:
        """The same for logits of attention, which may come in pieces of their rows."""
        if isinstance(self.force, Spread):
            self.force = self.force.of_logits(pieces, self.call.batch)
        return 0.0 if self.force is None else self.force


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


def may_write(grad: Tensor) -> bool:
    """Whether a backward pass may write into tensors: not for second derivatives, nor batched."""
    return not (torch.is_grad_enabled() or is_watched() or has_batched_gradient(grad))


def derivative(
    call: Call, tensors: Sequence[Tensor | None], wanted: Sequence[bool], grad: Tensor
) -> tuple[Tensor | None, ...]:
    """PyTorch's own derivative of an operation, as its gradients of the input and the others.

    Args:
        call: Of the operation.
        tensors: The input and the others.
        wanted: For each of them whether its gradient is.
        grad: The gradient of the output.
    """
    if is_transformed():
        return _transformed(call, tensors, wanted, grad)
    keeps_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        given: list[Any] = []
        for tensor, wants in zip(tensors, wanted, strict=True):
            if tensor is not None and wants:
                if not (keeps_graph and tensor.requires_grad):
                    tensor = tensor.detach().requires_grad_()
                # One of its own for each place, where one tensor has several.
                tensor = tensor.view_as(tensor)
            given.append(tensor)
        first, *others = given
        output = call.operation(first.clone(), *others)  # it may work in place
        output = output[0] if isinstance(output, tuple) else output
        ends: list[Tensor] = [tensor for tensor, wants in zip(given, wanted, strict=True) if wants]
        found = iter(
            torch.autograd.grad(output, ends, grad, create_graph=keeps_graph, allow_unused=True)
        )
    return tuple(next(found) if wants else None for wants in wanted)


def _transformed(
    call: Call, tensors: Sequence[Tensor | None], wanted: Sequence[bool], grad: Tensor
) -> tuple[Tensor | None, ...]:
    """The same inside of `torch.func`."""
    ends = [tensor for tensor, wants in zip(tensors, wanted, strict=True) if wants]

    def operation(*given: Tensor) -> Tensor:
        each = iter(given)
        first, *others = (
            next(each) if wants else tensor for tensor, wants in zip(tensors, wanted, strict=True)
        )
        output = call.operation(first.clone(), *others)  # type: ignore[union-attr]
        values: Tensor = output[0] if isinstance(output, tuple) else output
        return values

    found = iter(torch.func.vjp(operation, *ends)[1](grad))
    return tuple(next(found) if wants else None for wants in wanted)


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
        What the operation returns, to the bit.
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
