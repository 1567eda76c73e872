"""A function mode that meets every operation of a thread, and runs the gates among them softly.

PyTorch shows a `TorchFunctionMode` each operation before it runs, whichever way it is spelled, in
the thread that entered the mode and in the backward passes that it starts. The mode keeps the name
of the module that is running; hooks on the modules tell it.
"""

from __future__ import annotations

import copy
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointFunction

from captum_pullback.engine.gates import is_watched
from captum_pullback.engine.lean import LEAN
from captum_pullback.engine.operations import GATES, SMOOTH, TRAINING, Gate, split_call, trains
from captum_pullback.engine.pooling import values_of
from captum_pullback.engine.record import SofteningRecord
from captum_pullback.engine.temperature import Temperatures

__all__ = ["NAMES_ARE_LOST", "SofteningError", "SofteningMode", "entering", "innermost", "leaving"]

NAMES_ARE_LOST = (
    "temperatures per module need the modules' names, which a compiled graph has lost: use the "
    "original module, or one temperature for all"
)


class SofteningError(RuntimeError):
    """A pullback was asked for that cannot be given."""


class SofteningMode(TorchFunctionMode):
    """Runs the gates of one thread softly."""

    def __init__(self, temperatures: Temperatures, pool_temperatures: Temperatures) -> None:
        super().__init__()
        self.temperatures = temperatures
        self.pool_temperatures = pool_temperatures
        self.uniform = temperatures.uniform and pool_temperatures.uniform
        self.record = SofteningRecord()
        self.lean = False
        self.keep_copies = False
        self.keep_graph = False
        self.once = False
        self.see: Callable[[str, str, Tensor], None] | None = None
        self.key = object()
        self.path = [""]
        both = (temperatures, pool_temperatures)
        # For compiled graphs, which have no names, and which take a new temperature without a
        # new trace if it is a tensor. Indexed by Gate.pools.
        self.numbers = tuple(float(given.entries[""]) for given in both) if self.uniform else None
        self.tensors = [torch.tensor(number) for number in self.numbers or ()]

    def fork(self) -> SofteningMode:
        """The same softening for another thread that runs a share of this forward pass."""
        other = copy.copy(self)
        other.path = self.path[-1:]
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
        if func not in _KNOWN:
            return func(*args, **kwargs)
        if func in GATES:
            return self._run_gate(func, args, kwargs)
        if func in SMOOTH or (func in TRAINING and trains(func, args, kwargs)):
            return self._run_smooth(func, args, kwargs)
        if self.lean and func in LEAN:
            return self._run_lean(func, args, kwargs)
        if func in _GRADIENTS:
            self.require_gates(allow_idle=self.record.will_run_again)
            # Activation checkpointing runs forward passes inside the backward pass: hold there.
            if self.keep_graph and func is torch.autograd.grad:
                kwargs = {**kwargs, "retain_graph": True}
            with self:
                result = _GRADIENTS[func](*args, **kwargs)
            self.record.will_run_again = False
            return result
        return func(*args, **kwargs)

    def _run_gate(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        name, read = GATES[func]
        x, rest, named = split_call(args, kwargs)
        if self.see is not None and isinstance(x, Tensor) and read(*rest, **named) is not None:
            self.see(self.path[-1], name, x.detach())
        if not (isinstance(x, Tensor) and x.requires_grad and torch.is_grad_enabled()):
            _refuse_forward_mode(x)
            self.record.gates_without_gradient = True
            self.record.will_run_again |= _is_checkpointed()
            return func(*args, **kwargs)
        gate = read(*rest, **named)
        if gate is None:
            self._note_smooth(name)
            return func(*args, **kwargs)

        def operation(z: Tensor) -> Any:
            return func(z, *rest, **named)

        if torch.compiler.is_compiling():
            return self._run_traced(gate, name, operation, x)
        if self.keep_copies and not gate.inplace:
            x = x.clone()
        temperature = (self.pool_temperatures if gate.pools else self.temperatures)(self.path[-1])
        self.record.count(self.path[-1], name, temperature)
        if not isinstance(temperature, Tensor):
            if not temperature:
                return self._run_hard(func, (x, *rest), named)
            return gate.run(operation, x, temperature, self.once)
        if not gate.pools:
            self._check_shape(temperature, x, f"input of its {name}")
            return gate.run(operation, x, temperature.to(x.device), self.once)
        output = gate.run(operation, x, temperature.to(x.device), self.once)
        self._check_shape(temperature, values_of(output), f"output of its {name}")
        return output

    def _run_hard(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A hard gate, which a softening around this one must not make soft after all."""
        if innermost() is not None:
            with torch._C.DisableTorchFunction():
                return func(*args, **kwargs)
        if self.lean and func in LEAN:
            return self._run_lean(func, args, kwargs)
        return func(*args, **kwargs)

    def _run_traced(
        self, gate: Gate, name: str, operation: Callable[[Tensor], Any], x: Tensor
    ) -> Any:
        if self.numbers is None:
            raise SofteningError(NAMES_ARE_LOST)
        number = self.numbers[gate.pools]
        self.record.count_traced(name, number)
        if number == 0:
            return operation(x)
        return gate.run(operation, x, self.tensors[gate.pools], False)

    def _check_shape(self, temperature: Tensor, tensor: Tensor, what: str) -> None:
        try:
            shape = torch.broadcast_shapes(temperature.shape, tensor.shape)  # type: ignore[no-untyped-call]
            fits = shape == tensor.shape
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"the temperature of shape {tuple(temperature.shape)} for {self.path[-1]!r} does "
                f"not broadcast against the {what}, {tuple(tensor.shape)}"
            )

    def _run_smooth(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        result = func(*args, **kwargs)
        first = values_of(result)
        if isinstance(first, Tensor) and first.requires_grad:
            self._note_smooth(SMOOTH.get(func) or TRAINING[func].name)
        return result

    def _run_lean(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        output = None
        x = args[0] if args else None
        if (
            isinstance(x, Tensor)
            and x.requires_grad
            and torch.is_grad_enabled()
            and not torch.is_autocast_enabled(x.device.type)
            and not is_watched()
            and all(map(_is_fixed, args[1:]))
            and all(map(_is_fixed, kwargs.values()))
        ):
            output = LEAN[func](func, *args, **kwargs)
        return func(*args, **kwargs) if output is None else output

    def _note_smooth(self, operation: str) -> None:
        if torch.compiler.is_compiling():
            self.record.count_traced(operation, None)
        else:
            self.record.count(self.path[-1], operation, None)


def _refuse_forward_mode(x: Any) -> None:
    """Raise for a derivative that is taken forward, with the pass itself."""
    if not isinstance(x, Tensor) or torch.compiler.is_compiling():
        return
    if unpack_dual(x).tangent is not None:  # type: ignore[no-untyped-call]
        raise SofteningError(
            "forward-mode derivatives (torch.autograd.forward_ad, torch.func.jvp) would be plain "
            "ones, since soft gates are soft in the backward pass: take a gradient"
        )


def _is_checkpointed() -> bool:
    """Whether this runs in a reentrant checkpoint, which hides gates from autograd for now."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    frame = sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]
        if frame.f_code is CheckpointFunction.forward.__code__:
            return True
    return False


def _is_fixed(argument: Any) -> bool:
    """Whether no gradient with respect to inputs can pass through this argument."""
    if not isinstance(argument, Tensor) or not argument.requires_grad:
        return True
    # What isinstance asks of parameters takes longer.
    return type(argument) is nn.Parameter or isinstance(argument, nn.Parameter)


# Hooks need no state: they look for the softening among the function modes of the very thread that
# runs them, whichever that is, and in any other thread, or in a copy of the module, find none.


def _modes() -> list[SofteningMode]:
    """The softenings that this thread is in, the outermost first."""
    count = torch._C._len_torch_function_stack()
    modes = map(torch._C._get_function_stack_at, range(count))
    return [mode for mode in modes if isinstance(mode, SofteningMode)]


def innermost() -> SofteningMode | None:
    """The softening that this thread is in, if it is in any."""
    return modes[-1] if (modes := _modes()) else None


def entering(key: object, name: str, module: nn.Module, args: Any) -> None:
    """Tell the mode of this key that the module of this name runs: a forward pre-hook."""
    if not torch.compiler.is_compiling():
        for mode in _modes():
            if mode.key is key:
                mode.path.append(name)


def leaving(key: object, name: str, module: nn.Module, args: Any, output: Any) -> None:
    """Tell the mode of this key that the module of this name has run: a forward hook."""
    if not torch.compiler.is_compiling():
        for mode in _modes():
            # After an error, modules may have been entered and not left, or left and not entered.
            while mode.key is key and name in mode.path[1:] and mode.path.pop() != name:
                pass


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

# A dict, since Dynamo in torch 2.8 does not look into sets of functions.
_KNOWN = dict.fromkeys((*GATES, *SMOOTH, *TRAINING, *LEAN, *_GRADIENTS))
