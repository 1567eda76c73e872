"""A function mode that meets every operation of a thread, and runs the gates among them softly.

PyTorch shows a `TorchFunctionMode` each operation before it runs, whichever way it is spelled, in
the thread that entered the mode and in the backward passes that it starts. Which module runs, the
stack of Python frames tells: there are no hooks, so that none can be left behind.
"""

from __future__ import annotations

import contextvars
import functools
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from captum_pullback.engine._torch import (
    enter_mode,
    is_traced_for_cond,
    is_transformed,
    leave_mode,
)
from captum_pullback.engine.graph import CHOICES, COMPARISONS
from captum_pullback.engine.mode.differentiating import GRADIENTS, run_gradient
from captum_pullback.engine.mode.lean import LEAN
from captum_pullback.engine.mode.leaning import run_lean
from captum_pullback.engine.mode.masking import choose, compare
from captum_pullback.engine.mode.multiplying import run_product
from captum_pullback.engine.mode.running import run_gate, run_nonlinear
from captum_pullback.engine.mode.state import State, detached, note_left
from captum_pullback.engine.mode.traced import mark_traced
from captum_pullback.engine.names import (
    NONLINEAR,
    PRODUCTS,
    TRAINING,
    Operation,
    Product,
    is_training,
    nonlinear_of,
    product_of,
    trains,
)

__all__ = ["SofteningMode"]

# The modes of the running context, so that tasks that take turns in one thread keep their own.
_active: contextvars.ContextVar[tuple[SofteningMode, ...]] = contextvars.ContextVar(
    "captum_pullback.modes", default=()
)


class SofteningMode(State):
    """Runs the gates of one thread softly."""

    def __enter__(self) -> SofteningMode:
        _active.set((*_active.get(), self))
        self.thread = threading.get_ident()
        enter_mode(self)
        return self

    def __exit__(self, *_: Any) -> None:
        active = _active.get()
        last = len(active) - 1 - active[::-1].index(self) if self in active else len(active)
        try:
            above = leave_mode(self)
            # Other tasks of this thread take turns with this one: what they enter is their own.
            theirs = [isinstance(m, SofteningMode) and m not in active for m in above]
            self.left_nested = all(theirs) and last >= len(active) - 1
        finally:
            _active.set(active[:last] + active[last + 1 :])

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():
            if is_traced_for_cond():
                return func(*args, **kwargs)  # its branch is met where it runs
            output = self._dispatch(func, args, kwargs)
            mark_traced(func, args, kwargs, output)
            return output
        runner = _RUNNERS.get(func)
        if runner is None:
            if func is _COND and self._is_active() and not (kwargs or is_transformed()):
                predicate, if_true, if_false, operands = args
                with self.entered():
                    return (if_true if predicate else if_false)(*operands)
            if func not in self.functions:
                return func(*args, **kwargs)
        if not self._is_active():
            return func(*args, **kwargs)  # another task's turn in this thread
        if runner is None or func in self.functions:
            return self._dispatch(func, args, kwargs)
        return runner(self, func, args, kwargs)

    def _is_active(self) -> bool:
        """Whether what runs belongs to this block.

        Backward passes on other devices than the CPU run in threads of autograd's own: these get
        the modes of the thread that asked for the gradient, but not its context.
        """
        if self in _active.get():
            return True
        in_gradient = self.takes_gradient or self.record.own_gradients > 0
        return in_gradient and threading.get_ident() != self.thread

    def _dispatch(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run an operation by what it is; where no compiler is at work, `_RUNNERS` knows that."""
        if func in GRADIENTS:
            return run_gradient(self, func, args, kwargs)
        if not torch.compiler.is_compiling():
            if func in COMPARISONS:
                return compare(self, func, args, kwargs)
            if func in CHOICES:
                return choose(self, func, args, kwargs)
        operation = nonlinear_of(func)
        if operation is not None:
            return run_nonlinear(self, func, args, kwargs, operation)
        if func in self.functions:
            operation = Operation(getattr(func, "__name__", str(func)), func)
            return run_nonlinear(self, func, args, kwargs, operation)
        product = product_of(func)
        if product is not None:
            return _multiply(self, func, args, kwargs, product)
        return _train(self, func, args, kwargs)


def _multiply(
    state: State,
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    product: Product,
) -> Any:
    """Run a product, which is linear where one factor alone depends on the inputs."""
    output = run_product(state, func, product, args, kwargs)
    if output is not NotImplemented:
        return output
    if state.lean:
        if product.name in _ELEMENTWISE and any(map(_is_parameter, args)):
            # Autograd keeps the other factor for a parameter's gradient.
            return func(*map(detached, args), **kwargs)
        if func in LEAN and not torch.compiler.is_compiling():
            return run_lean(state, func, args, kwargs)
    return func(*args, **kwargs)


def _layer(
    state: State,
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    product: Product,
) -> Any:
    """The same of what is linear in its input, if its weight is a parameter."""
    if state.lean and len(args) > 1 and type(args[1]) is nn.Parameter:
        return run_lean(state, func, args, kwargs)
    return _multiply(state, func, args, kwargs, product)


def _train(
    state: State, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run what is linear, unless it trains."""
    if is_training(func) and trains(func, args, kwargs):
        output = func(*args, **kwargs)
        note_left(state, TRAINING[func].name, output, args)
        return output
    if state.lean and func in LEAN and not torch.compiler.is_compiling():
        return run_lean(state, func, args, kwargs)
    return func(*args, **kwargs)


def _is_parameter(argument: Any) -> bool:
    return type(argument) is nn.Parameter


# Products whose kernel does not depend on which factor needs a gradient.
_ELEMENTWISE = ("mul", "multiply", "div", "divide", "true_divide", "truediv", "addcmul")

_COND = torch.ops.higher_order.cond

#: function -> what runs it, as runner(state, function, args, kwargs); the first that fits counts.
_RUNNERS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys(LEAN, run_lean),
    **dict.fromkeys(TRAINING, _train),
    **{
        function: functools.partial(_layer if function in LEAN else _multiply, product=product)
        for function, product in PRODUCTS.items()
    },
    **{
        function: functools.partial(run_gate, operation=operation)
        for function, operation in NONLINEAR.items()
    },
    **dict.fromkeys(CHOICES, choose),
    **dict.fromkeys(COMPARISONS, compare),
    **dict.fromkeys(GRADIENTS, run_gradient),
}
