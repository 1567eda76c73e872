"""Calls of PyTorch's functions, and of what is held, made for other tensors than their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from captum_pullback.affine.linearity import Graph
from captum_pullback.affine.shadows import shares_memory
from captum_pullback.affine.tangents import Tangent, tangents_of
from captum_pullback.affine.written import written_by
from captum_pullback.engine._torch import is_view
from captum_pullback.engine.calls.held import Call, Context
from captum_pullback.engine.names import NONLINEAR, PRODUCTS

__all__ = ["FunctionCall", "HeldCall", "tensors_in"]

Swap = Callable[[Tensor], Tensor]

# Arguments by name that are no factors of a product.
_ADDED = frozenset(("bias", "out"))


def tensors_in(given: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and dicts."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, tuple | list):
        for part in given:
            yield from tensors_in(part)
    elif isinstance(given, dict):
        for part in given.values():
            yield from tensors_in(part)


class FunctionCall:
    """A call that is about to be made.

    Args:
        func: A function as a function mode is shown it.
        args: Its arguments.
        kwargs: Its keyword arguments.
        moving: Those tensors among them that depend on the network's inputs.

    Attributes:
        target: The tensor that the call writes into, if it does.
        moving: Each of them once.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        moving: list[Tensor],
    ) -> None:
        self.func, self.args, self.kwargs = func, args, kwargs
        self.moving = list({id(tensor): tensor for tensor in moving}.values())
        self.target = written_by(func, args, kwargs)
        self._ids = {id(tensor) for tensor in moving}
        # Of what is written over, where it is needed afterwards.
        self._before: Tensor | None = None
        if self.target is not None and (
            self.hides or func in NONLINEAR or func in PRODUCTS or not torch.is_grad_enabled()
        ):
            self._before = self.target.detach().clone()

    @property
    def hides(self) -> bool:
        """Whether autograd's graph hides the call: it writes into a part of a tensor."""
        return self.target is not None and is_view(self.target)

    def writes_into(self, tensor: Tensor) -> bool:
        """Whether the tensor lies in the memory of what is written into."""
        return self.target is not None and shares_memory(tensor, self.target)

    @property
    def moving_factors(self) -> list[Tensor]:
        """Of a product, the factors that depend on the inputs."""
        product = PRODUCTS.get(self.func)
        if product is None:
            return []
        factors: list[Any] = [part for key, part in self.kwargs.items() if key not in _ADDED]
        if product.operands:
            factors += tensors_in(self.args)
        else:
            factors += [self.args[place] for place in product.factors if place < len(self.args)]
        return [part for part in factors if id(part) in self._ids]

    def change(self) -> Tensor:
        """What a write has added to the tensor that it went into."""
        assert self.target is not None
        assert self._before is not None
        return self.target.detach() - self._before

    def with_others(self, other: Swap) -> Any:
        """What the call gives with others in place of what moves or is written into."""
        swapped = {id(tensor): other(tensor) for tensor in self.moving}
        if self.target is not None and id(self.target) not in swapped:
            swapped[id(self.target)] = other(self.target)
        return self.func(*_swap(self.args, swapped), **_swap(self.kwargs, swapped))

    def nonlinear(self) -> list[str]:
        """What in it is not piecewise linear in what moves, by PyTorch's names."""
        outputs, leaves = self._on_leaves()
        return [name for output in outputs for name in Graph(output, leaves).nonlinear]

    def along_pieces(self, shadow: Swap) -> list[Tensor]:
        """For shadows, what the piece gives on which a piecewise linear operation is."""
        outputs, leaves = self._on_leaves()
        moved, here = [shadow(part) for part in self.moving], [leaf.detach() for leaf in leaves]
        tangents = tangents_of(outputs, leaves)
        return [
            tangent(moved) + (output.detach() - tangent(here))
            for output, tangent in zip(outputs, tangents, strict=True)
        ]

    def of_shares(self, shadow: Swap) -> Tensor:
        """For shadows, what a product gives each of whose factors has its share of it."""
        (output,), leaves = self._on_leaves()
        (tangent,) = tangents_of([output], leaves)
        added: Tensor = self.with_others(torch.zeros_like)
        return tangent([shadow(part) for part in self.moving]) + added

    def _on_leaves(self) -> tuple[list[Tensor], list[Tensor]]:
        """The call on leaves, as autograd records it: outputs and leaves."""
        before, target = self._before, self.target
        leaves = [
            (before if before is not None and part is target else part)
            .detach()
            .clone()
            .requires_grad_()
            for part in self.moving
        ]
        stands = {id(part): leaf for part, leaf in zip(self.moving, leaves, strict=True)}
        written: list[Tensor] = []

        def other(tensor: Tensor) -> Tensor:
            leaf = stands.get(id(tensor))
            if leaf is not None and tensor is not target:
                return leaf
            if leaf is not None:
                written.append(leaf.clone())
            else:
                assert before is not None
                written.append(before.clone())
            return written[0]

        with torch.enable_grad():
            result = self.with_others(other)
        outputs = [part for part in tensors_in(result) if part.requires_grad]
        return outputs or written, leaves


class HeldCall:
    """A call of an operation of which something is held, and was made.

    Args:
        call: The operation, and what is held of it.
        tensors: The input as it was, and the other tensors.
        kept: What else was kept of the forward pass.
        moving: Which of the tensors depend on the network's inputs.

    Attributes:
        name: Of its rule.
    """

    def __init__(
        self,
        call: Call,
        tensors: tuple[Tensor | None, ...],
        kept: list[Any],
        moving: tuple[bool, ...],
    ) -> None:
        self.call, self.tensors, self.moving = call, tensors, moving
        self.name = call.held.pull.__qualname__.split(".")[0]
        self._saved = [tensors[place] for place in call.held.saves] + kept
        given = call.temperature if isinstance(call.temperature, Tensor) else None
        self._context = Context(call, given, moving, reuse=False)
        here = tensors[0]
        if call.held.layout and here is not None:
            self._context.shape, self._context.strides = here.shape, here.stride()

    def pushed(self, moved: tuple[Tensor | None, ...], output: Tensor) -> Tensor:
        """What it gives for other tensors, with held what is held.

        Args:
            moved: In place of the input and the other tensors.
            output: What it gave for the input.
        """
        held = self.call.held
        if held.push is not None and held.keeps_forward(self.call.temperature):
            return held.push(self._context, moved, *self._saved)
        tangent = Tangent(self._pull, output)
        return tangent(moved) + (output - tangent(self.tensors))

    def is_bilinear(self, output: Tensor) -> bool:
        """Whether two of the tensors move it, and so no map of both: a normalization's weights."""
        if sum(self.moving) < 2:
            return False
        pulled = self._pull(torch.zeros_like(output))
        pairs = zip(pulled, self.moving, strict=True)
        return sum(part is not None and moves for part, moves in pairs) > 1

    def _pull(self, gradient: Tensor) -> tuple[Tensor | None, ...]:
        pulled = self.call.held.pull(self._context, gradient, *self._saved)
        return pulled if isinstance(pulled, tuple) else (pulled,)


def _swap(given: Any, swapped: dict[int, Tensor]) -> Any:
    if isinstance(given, Tensor):
        return swapped.get(id(given), given)
    if isinstance(given, tuple) and hasattr(given, "_fields"):
        return type(given)(*(_swap(part, swapped) for part in given))
    if isinstance(given, tuple | list):
        return type(given)(_swap(part, swapped) for part in given)
    if isinstance(given, dict):
        return {key: _swap(part, swapped) for key, part in given.items()}
    return given
