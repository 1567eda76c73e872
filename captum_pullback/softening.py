"""How the gates of a forward pass are swapped for soft ones, for a while.

A `TorchFunctionMode` meets every operation that this thread runs, whichever way it is spelled,
and gives the gates among them a soft backward pass. Hooks on the modules only tell it the name of
the module that is running. The mode belongs to a thread and to a `with` block, the state of a
gate to one call, and the hooks know nothing: so nothing can be left behind or seen elsewhere.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function_unary

from .models import is_compiled, may_run_gates, named_modules, refuse_scripted, replaced_method
from .operations import GATES, SMOOTH, Gate
from .record import SofteningRecord
from .temperature import TemperatureLike, Temperatures

__all__ = ["SofteningError", "check", "soften", "watch"]


_NAMES_ARE_LOST = (
    "temperatures per module need the modules' names, which a compiled graph has lost: use the "
    "original module, or one temperature for all"
)


class SofteningError(RuntimeError):
    """A pullback was asked for that cannot be given."""


@contextmanager
def soften(
    model: Callable[..., Any],
    temperature: TemperatureLike = 0.3,
    *,
    pool_temperature: TemperatureLike | None = None,
) -> Iterator[SofteningRecord]:
    r"""Make every gradient taken inside the block an excitation pullback.

    Forward passes inside stay as they are, to the bit. In backward passes each gate
    :math:`1[z > 0]` is replaced by :math:`\sigma(z / T)`, and each max pool's choice by a softmax
    of temperature :math:`T` (arXiv 2507.22832). This holds for whatever this thread runs in the
    block, so that any gradient method becomes its pullback version::

        with soften(model) as record:
            attribution = IntegratedGradients(model).attribute(x, target=3)
        print(record)

    Args:
        model: The network, or any callable. A `torch.nn.Module` gives names to its gates.
        temperature: In units of the pre-activations, from 0 (hard gates, the plain gradient) to
            inf (a linear network in which each ReLU passes one half). Or a mapping from module
            names, or beginnings of names, to a number or to a tensor that broadcasts against
            the gate's input (per channel: shape (C, 1, 1) for images); ``""`` is all the rest.
        pool_temperature: The same for max pooling. None follows ``temperature``; 0 keeps pooling
            hard. A tensor broadcasts against the pool's output, and is above 0.

    Yields:
        The record of what was softened, and of the nonlinearities met and left hard.

    Raises:
        TypeError: A scripted or traced model, or something that is no temperature.
        ValueError: A temperature that is negative, NaN, of a shape that does not broadcast, or
            that names no module.
        SofteningError: No gate was met, so that gradients would be plain ones; or the block is
            inside `torch.inference_mode`, where there are no gradients.
    """
    if torch.is_inference_mode_enabled():
        raise SofteningError(
            "there are no gradients in torch.inference_mode(): leave it, or use torch.no_grad()"
        )
    modules, mode = _prepare(model, temperature, pool_temperature)
    with _installed(modules, mode):
        yield mode.record
    mode.require_gates(allow_idle=True)


@contextmanager
def watch(
    model: Callable[..., Any], see: Callable[[str, str, Tensor], None]
) -> Iterator[SofteningRecord]:
    """Show the input of each gate that runs in the block; gradients stay plain ones.

    Args:
        model: The network, or any callable.
        see: Called as ``see(module, operation, input)`` before the gate runs, with the names of
            `SofteningRecord`. A pool's operation has "pool" in its name.
    """
    modules, mode = _prepare(model, 0.0, None)
    mode.see = see
    with _installed(modules, mode):
        yield mode.record


@contextmanager
def _installed(modules: list[tuple[str, nn.Module]], mode: _SofteningMode) -> Iterator[None]:
    # Dynamo would trace the hooks, and trace the model anew for each set of them.
    compiled = {part for _, module in modules if is_compiled(module) for part in module.modules()}
    with ExitStack() as undo:
        for name, module in modules:
            if may_run_gates(module) and module not in compiled:
                enter = functools.partial(_entering, mode.key, name)
                leave = functools.partial(_leaving, mode.key)
                undo.callback(module.register_forward_pre_hook(enter).remove)
                undo.callback(module.register_forward_hook(leave, always_call=True).remove)
            if isinstance(module, nn.DataParallel):
                undo.enter_context(replaced_method(module, "parallel_apply", _softly))
        with mode:
            yield


def check(
    model: Callable[..., Any],
    temperature: TemperatureLike,
    pool_temperature: TemperatureLike | None,
) -> None:
    """Raise what `soften` would raise for these arguments, and do nothing else."""
    _prepare(model, temperature, pool_temperature)


def _prepare(
    model: Callable[..., Any],
    temperature: TemperatureLike,
    pool_temperature: TemperatureLike | None,
) -> tuple[list[tuple[str, nn.Module]], _SofteningMode]:
    temperatures = Temperatures(temperature)
    pool_temperatures = temperatures
    if pool_temperature is not None:
        pool_temperatures = Temperatures(pool_temperature, "pool_temperature")
    modules = named_modules(model)
    refuse_scripted(model, modules)
    for given in (temperatures, pool_temperatures):
        given.check_names([name for name, _ in modules])
    mode = _SofteningMode(temperatures, pool_temperatures)
    if not mode.uniform and any(is_compiled(module) for _, module in modules):
        raise SofteningError(_NAMES_ARE_LOST)
    return modules, mode


class _SofteningMode(TorchFunctionMode):
    """Runs the gates of one thread softly."""

    def __init__(self, temperatures: Temperatures, pool_temperatures: Temperatures) -> None:
        super().__init__()
        self.temperatures = temperatures
        self.pool_temperatures = pool_temperatures
        self.uniform = temperatures.uniform and pool_temperatures.uniform
        self.record = SofteningRecord()
        self.see: Callable[[str, str, Tensor], None] | None = None
        self.key = object()
        self.path = [""]
        both = (temperatures, pool_temperatures)
        # For compiled graphs, which have no names, and which take a new temperature without a
        # new trace if it is a tensor. Indexed by Gate.pools.
        self.numbers = tuple(float(given.entries[""]) for given in both) if self.uniform else None
        self.tensors = [torch.tensor(number) for number in self.numbers or ()]

    def fork(self) -> _SofteningMode:
        """The same softening for another thread that runs a share of this forward pass."""
        other = _SofteningMode(self.temperatures, self.pool_temperatures)
        other.record, other.key, other.path = self.record, self.key, self.path[-1:]
        other.see = self.see
        return other

    def require_gates(self, *, allow_idle: bool = False) -> None:
        """Raise if no gate was met, which would make every gradient a plain one."""
        if self.record.gates or (allow_idle and self.record.gates_without_gradient):
            return
        left = sorted({met.operation for met in self.record.left_hard})
        raise SofteningError(
            "nothing was softened: no ReLU, clamp(min=0) or max pool that carries a gradient ran "
            "inside soften(), so this would be a plain gradient. "
            + (f"Nonlinearities that are no gates ran: {', '.join(left)}. " if left else "")
            + "Run the forward pass inside the block, on inputs that require gradients, with a "
            "network whose gates are not inside scripted or traced code."
        )

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in GATES:
            return self._run_gate(func, args, kwargs)
        if func in SMOOTH:
            return self._run_smooth(func, args, kwargs)
        if func in _GRADIENTS:
            self.require_gates()
            # Activation checkpointing runs forward passes inside the backward pass: hold there.
            with self:
                return _GRADIENTS[func](*args, **kwargs)
        if func is _enter and args[0] is self.key:
            self.path.append(args[1])
        elif func is _leave and args[0] is self.key:
            self.path.pop()
        elif func is _innermost:
            return self
        return func(*args, **kwargs)

    def _run_gate(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        name, read = GATES[func]
        if args:
            x, rest, named = args[0], args[1:], kwargs
        else:
            named = dict(kwargs)
            x, rest = named.pop("input", None), ()
        if self.see is not None and isinstance(x, Tensor) and read(*rest, **named) is not None:
            self.see(self.path[-1], name, x.detach())
        if not (isinstance(x, Tensor) and x.requires_grad and torch.is_grad_enabled()):
            self.record.gates_without_gradient = True
            return func(*args, **kwargs)
        gate = read(*rest, **named)
        if gate is None:
            self._note_smooth(name)
            return func(*args, **kwargs)

        def operation(z: Tensor) -> Any:
            return func(z, *rest, **named)

        if torch.compiler.is_compiling():
            return self._run_traced(gate, name, operation, x)
        temperature = (self.pool_temperatures if gate.pools else self.temperatures)(self.path[-1])
        self.record.count(self.path[-1], name, temperature)
        if isinstance(temperature, Tensor):
            temperature = self._fitted(temperature, x, name)
        elif temperature == 0:
            return operation(x)
        return gate.run(operation, x, temperature)

    def _run_traced(
        self, gate: Gate, name: str, operation: Callable[[Tensor], Any], x: Tensor
    ) -> Any:
        if self.numbers is None:
            raise SofteningError(_NAMES_ARE_LOST)
        number = self.numbers[gate.pools]
        self.record.count_traced(name, number)
        return operation(x) if number == 0 else gate.run(operation, x, self.tensors[gate.pools])

    def _fitted(self, temperature: Tensor, x: Tensor, operation: str) -> Tensor:
        """A tensor of temperatures on the device of x, if it broadcasts against x."""
        try:
            shape = torch.broadcast_shapes(temperature.shape, x.shape)  # type: ignore[no-untyped-call]
            fits = shape == x.shape
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"the temperature of shape {tuple(temperature.shape)} for {self.path[-1]!r} does "
                f"not broadcast against the input of its {operation}, {tuple(x.shape)}"
            )
        return temperature.to(x.device)

    def _run_smooth(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and result.requires_grad:
            self._note_smooth(SMOOTH[func])
        return result

    def _note_smooth(self, operation: str) -> None:
        if torch.compiler.is_compiling():
            self.record.count_traced(operation, None)
        else:
            self.record.count(self.path[-1], operation, None)


# Hooks speak to the mode through functions that it overrides, as if they were operations. So they
# need no state: they reach the softening of the very thread that runs them, in whichever thread
# that is, and in any other thread, or in a copy of the module, they do nothing.


def _enter(key: object, name: str) -> None:
    if has_torch_function_unary(key):
        handle_torch_function(_enter, (), key, name)


def _leave(key: object) -> None:
    if has_torch_function_unary(key):
        handle_torch_function(_leave, (), key)


def _innermost() -> _SofteningMode | None:
    if has_torch_function_unary(None):
        mode: _SofteningMode | None = handle_torch_function(_innermost, ())
        return mode
    return None


def _entering(key: object, name: str, module: nn.Module, args: Any) -> None:
    if not torch.compiler.is_compiling():
        _enter(key, name)


def _leaving(key: object, module: nn.Module, args: Any, output: Any) -> None:
    if not torch.compiler.is_compiling():
        _leave(key)


def _softly(parallel_apply: Callable[..., Any]) -> Callable[..., Any]:
    """DataParallel's `parallel_apply`, whose threads take on the softening of the calling one."""

    def apply(replicas: Sequence[nn.Module], *args: Any) -> Any:
        mode = _innermost()
        if mode is None:
            return parallel_apply(replicas, *args)
        return parallel_apply([functools.partial(_run, mode.fork(), r) for r in replicas], *args)

    return apply


def _run(mode: _SofteningMode, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    with mode:
        return module(*args, **kwargs)


def _unasked(function: Any) -> Any:
    """A copy of one of torch.autograd's functions that does not ask function modes again."""
    deaf = dict.fromkeys(("has_torch_function", "has_torch_function_unary"), lambda _: False)
    copy = types.FunctionType(
        function.__code__,
        {**function.__globals__, **deaf},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


_GRADIENTS: dict[Any, Any] = {
    function: _unasked(function)
    for function in (torch.autograd.grad, torch.autograd.backward, Tensor.backward)
}
