"""What is held of one call of an operation, and what its backward pass may use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_pullback.engine._torch import has_batched_gradient, is_transformed, is_watched
from captum_pullback.engine.spread import Spread, Temperature

__all__ = ["Call", "Context", "Held", "derivative", "may_write"]

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
        softens: Whether the temperature has an effect; if not, the gate is held as it is.
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
    """What a rule may use in a backward pass.

    Attributes:
        operation: The original call, as a function of its input alone. It may work in place.
        wanted: For the input and each of the other tensors, whether a gradient is needed.
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
