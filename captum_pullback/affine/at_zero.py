r"""What the held network gives at the input 0, computed beside the network itself.

With every gate held, a network is :math:`f(x) = W x + b`, and :math:`b` is what it gives at 0. So
each tensor that depends on the inputs gets a second value, its shadow: the inputs' is 0. Whatever
the network does to the tensors is done to their shadows too, at once, biases and constants
included; what is held of an operation is held as the tensors themselves have it. There is no
second run of the network, so control flow, state and random numbers are those of the first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from captum_pullback.affine.calls import FunctionCall, HeldCall, tensors_in
from captum_pullback.affine.linearity import CORNERED
from captum_pullback.affine.shadows import Shadows, shares_memory
from captum_pullback.affine.written import NO_WRITES, draws_numbers
from captum_pullback.engine._torch import is_view, unseen, version
from captum_pullback.engine.calls.backward import following, run
from captum_pullback.engine.calls.held import Call
from captum_pullback.engine.graph import mark_linear, sources
from captum_pullback.engine.names import NONLINEAR, TRAINING, trains
from captum_pullback.engine.products import is_share
from captum_pullback.engine.rules.pooling import values_of

__all__ = ["AtZero"]

_GRADIENTS = (torch.autograd.grad, torch.autograd.backward, Tensor.backward)


class AtZero(TorchFunctionMode):
    """A mode to run the network in, outside of its softening.

    Args:
        leaves: The inputs, leaves that require gradients.

    Attributes:
        nonlinear: What was met that is no affine map of its inputs, where autograd's graph does
            not show it, by PyTorch's names.
        lost: What could not be followed.
    """

    def __init__(self, leaves: Sequence[Tensor]) -> None:
        super().__init__()
        self.nonlinear: list[str] = []
        self.lost: list[str] = []
        self._leaves = {id(leaf) for leaf in leaves}
        self._shadows = Shadows()
        self._paused = False
        self._token: Any = None
        with torch.no_grad():
            for leaf in leaves:
                self._shadows.put(leaf, torch.zeros_like(leaf), fresh=True)

    def __enter__(self) -> AtZero:
        self._token = following.set(self)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        following.reset(self._token)

    def finish(self, output: Tensor) -> Tensor:
        """What the held network gives at 0 in place of this output; nothing is followed after."""
        with torch.no_grad():
            found = self._shadows.of(output) if self._moves(output) else output.detach()
        self._paused, self._shadows = True, Shadows()
        following.set(None)
        return found

    # --- calls ---

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if torch.compiler.is_compiling() or self._paused or func in NO_WRITES:
            return func(*args, **kwargs)
        if func in _GRADIENTS:
            return self._alone(lambda: func(*args, **kwargs))
        tensors = list(tensors_in((args, kwargs)))
        with unseen():
            moving = [tensor for tensor in tensors if self._moves(tensor)]
        if not moving:
            return func(*args, **kwargs)
        return self._follow(func, args, kwargs, tensors, moving)

    def _follow(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tensors: list[Tensor],
        moving: list[Tensor],
    ) -> Any:
        """Run a call of PyTorch's own on the tensors, and then on their shadows."""
        with _aside():
            call = FunctionCall(func, args, kwargs, moving)
            if call.target is not None:
                self._shadows.begin(call.target)
        versions = list(map(version, tensors))
        output = func(*args, **kwargs)
        recorded = torch.is_grad_enabled()
        with _aside():
            for tensor, before in zip(tensors, versions, strict=True):
                if version(tensor) != before and not call.writes_into(tensor):
                    self._lose(f"{_name_of(func)}, which writes into what it is given")
            if func in TRAINING and trains(func, args, kwargs):
                return output  # which is refused by its name
            try:
                if recorded:
                    self._shade(call, output)
                elif call.target is not None and call.target.requires_grad:
                    # Written without autograd, for which that is a constant.
                    self._shadows.of(call.target).add_(call.change())
            except (NotImplementedError, RuntimeError, TypeError) as error:
                self._lose(_name_of(func), error)
        return output

    def _shade(self, call: FunctionCall, output: Any) -> None:
        """Give the output of a call of PyTorch's own its shadow."""
        func = call.func
        outputs = [part for part in tensors_in(output) if part.requires_grad]
        if not outputs and call.target is not None and call.target.requires_grad:
            outputs = [call.target]  # of an assignment to a slice
        if not outputs:
            return
        factors = call.moving_factors
        if call.hides:
            for name in call.nonlinear():
                self._note(name)
        if func in NONLINEAR and NONLINEAR[func].kind in CORNERED:
            values = call.along_pieces(self._shadows.of)
        elif len(factors) > 1 and all(map(is_share, factors)):
            mark_linear(outputs[0], call.moving)
            values = [call.of_shares(self._shadows.of)]
        elif func in NONLINEAR or len(factors) > 1 or draws_numbers(func):
            # A constant, or something that is refused if it lies on the way.
            values = [part.detach().clone() for part in outputs]
        else:
            result = call.with_others(self._shadows.of)
            if result is None:
                return
            pairs = zip(tensors_in(output), tensors_in(result), strict=True)
            for part, value in pairs:
                if part.requires_grad:
                    self._shadows.put(part, value, fresh=not is_view(value))
            return
        for part, value in zip(outputs, values, strict=True):
            self._shadows.put(part, value, fresh=True)

    def held(self, call: Call, x: Tensor, inplace: bool) -> Any:
        """Run a held call, and let its output have the shadow that what is held gives it.

        Args:
            call: The operation, and what is held of it.
            x: Its input.
            inplace: Whether it writes into its input.
        """
        held, kept = call.held, list[Any]()
        if not inplace:
            call = dataclasses.replace(call, operation=_apart(call.operation))
        with _aside():
            tensors = (x, *held.others)
            moving = tuple(part is not None and self._moves(part) for part in tensors)
            here = x.clone() if inplace else x.detach()
            if inplace:
                self._shadows.begin(x)
        if held.run is not None:
            # What it keeps is caught here: to ask the graph for it may run a checkpoint again.
            run_ = held.run

            def catching(*given: Any) -> tuple[Any, ...]:
                result = run_(*given)
                kept.extend(result[1:])
                return result

            call = dataclasses.replace(call, held=held._replace(run=catching))
        output = self._alone(lambda: run(call, x, inplace=inplace))
        first = values_of(output)
        with _aside():
            if not (any(moving) and first.requires_grad):
                return output
            given = HeldCall(call, (here, *map(_detached, held.others)), kept, moving)
            moved = tuple(
                self._shadows.of(part) if moves and part is not None else _detached(part)
                for part, moves in zip(tensors, moving, strict=True)
            )
            try:
                self._shadows.put(first, given.pushed(moved, first.detach()), fresh=True)
            except RuntimeError as error:
                self._lose(given.name, error)
            if given.is_bilinear(first):
                self._note(f"{given.name} with weights that depend on the inputs")
        return output

    # --- what there is ---

    def _moves(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on the inputs, by a way on which gradients go."""
        if not tensor.requires_grad or isinstance(tensor, nn.Parameter):
            return False
        try:
            if tensor in self._shadows:
                return True
        except (NotImplementedError, RuntimeError) as error:  # sparse, wrapped: without memory
            self._lose(f"a tensor of type {type(tensor).__name__}", error)
            return False
        if sources(tensor) & self._leaves:
            node = tensor.grad_fn
            self._lose(node.name() if node is not None else "a computation")
        return False

    def _note(self, what: str) -> None:
        if what not in self.nonlinear:
            self.nonlinear.append(what)

    def _lose(self, what: str, error: Exception | None = None) -> None:
        if what not in self.lost:
            self.lost.append(what)

    def _alone(self, action: Callable[[], Any]) -> Any:
        """Do something without being shown its operations."""
        before, self._paused = self._paused, True
        token = following.set(None)
        try:
            return action()
        finally:
            following.reset(token)
            self._paused = before


@contextmanager
def _aside() -> Iterator[None]:
    """A block in which nothing is recorded or shown, nor kept by a checkpoint around it."""
    plain = torch.autograd.graph.saved_tensors_hooks(lambda part: part, lambda part: part)
    with unseen(), torch.no_grad(), plain:
        yield


def _apart(operation: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """The operation, with memory of its own for a result that lies in its input's.

    A factor that passes on a share is its input, but its shadow is not its input's.
    """

    def apart(z: Tensor) -> Any:
        result = operation(z)
        if isinstance(result, Tensor) and shares_memory(result, z):
            return result.clone()
        return result

    return apart


def _name_of(func: Any) -> str:
    return str(getattr(func, "__name__", func))


def _detached(part: Tensor | None) -> Tensor | None:
    return None if part is None else part.detach()
