"""How the gates of a forward pass are swapped for soft ones, for a while.

The mode that runs them belongs to a thread and to a `with` block, the state of a gate to one call,
and the hooks that name the modules have no state: nothing is left behind or seen elsewhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_pullback.engine.gates import CheckpointMismatchError
from captum_pullback.engine.mode import (
    NAMES_ARE_LOST,
    SofteningError,
    SofteningMode,
    entering,
    innermost,
    leaving,
)
from captum_pullback.engine.models import (
    is_compiled,
    may_run_gates,
    named_modules,
    refuse_scripted,
    replaced_method,
)
from captum_pullback.engine.record import SofteningRecord
from captum_pullback.engine.temperature import TemperatureLike, Temperatures

__all__ = [
    "SofteningError",
    "check",
    "refuse_inference_mode",
    "soften",
    "soften_for_inputs",
    "watch",
]


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
        CheckpointMismatchError: Activation checkpointing, and the gradient taken after the block.

    Example:
        >>> z = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
        >>> with soften(torch.relu, temperature=1.0) as record:
        ...     torch.relu(z).sum().backward()
        >>> z.grad
        tensor([0.2689, 0.5000, 0.7311])
        >>> print(record)
        module   operation  calls  temperature
        -------  ---------  -----  -----------
        (model)  relu       1      1
        1 gate calls softened, 0 nonlinearity calls left hard
    """
    with _softened(model, temperature, pool_temperature, lean=False) as record:
        yield record


@contextmanager
def soften_for_inputs(
    model: Callable[..., Any],
    temperature: TemperatureLike,
    pool_temperature: TemperatureLike | None = None,
    *,
    keep_copies: bool = False,
    gradients: int = 1,
) -> Iterator[SofteningRecord]:
    """`soften`, with less memory, where nobody asks for gradients with respect to parameters.

    ``keep_copies`` serves networks that change a gate's input in place after the gate has run, and
    those that take gradients themselves, so that gates are asked more than once. ``gradients`` is
    how many are going to be taken of one forward pass; for more than one, graphs are kept.
    """
    with _softened(
        model,
        temperature,
        pool_temperature,
        lean=True,
        keep_copies=keep_copies,
        keep_graph=gradients > 1,
    ) as record:
        yield record


@contextmanager
def _softened(
    model: Callable[..., Any],
    temperature: TemperatureLike,
    pool_temperature: TemperatureLike | None,
    *,
    lean: bool,
    keep_copies: bool = False,
    keep_graph: bool = False,
) -> Iterator[SofteningRecord]:
    refuse_inference_mode()
    modules, mode = _prepare(model, temperature, pool_temperature)
    mode.lean, mode.keep_copies, mode.keep_graph = lean, keep_copies, keep_graph
    mode.once = lean and not (keep_copies or keep_graph)
    with _installed(modules, mode):
        yield mode.record
    if mode.record.will_run_again:
        raise CheckpointMismatchError
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
def _installed(modules: list[tuple[str, nn.Module]], mode: SofteningMode) -> Iterator[None]:
    # Dynamo would trace the hooks, and trace the model anew for each set of them.
    compiled = {part for _, module in modules if is_compiled(module) for part in module.modules()}
    with ExitStack() as undo:
        for name, module in modules:
            if may_run_gates(module) and module not in compiled:
                enter = functools.partial(entering, mode.key, name)
                leave = functools.partial(leaving, mode.key, name)
                undo.callback(module.register_forward_pre_hook(enter).remove)
                undo.callback(module.register_forward_hook(leave, always_call=True).remove)
            if isinstance(module, nn.DataParallel):
                undo.enter_context(replaced_method(module, "parallel_apply", _softly))
        with mode:
            yield


def refuse_inference_mode() -> None:
    """Raise SofteningError inside `torch.inference_mode`."""
    if torch.is_inference_mode_enabled():
        raise SofteningError(
            "there are no gradients in torch.inference_mode(): leave it, or use torch.no_grad()"
        )


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
) -> tuple[list[tuple[str, nn.Module]], SofteningMode]:
    temperatures = Temperatures(temperature)
    pool_temperatures = temperatures
    if pool_temperature is not None:
        pool_temperatures = Temperatures(pool_temperature, "pool_temperature")
    modules = named_modules(model)
    refuse_scripted(model, modules)
    for given in (temperatures, pool_temperatures):
        given.check_names([name for name, _ in modules])
    mode = SofteningMode(temperatures, pool_temperatures)
    if not mode.uniform and any(is_compiled(module) for _, module in modules):
        raise SofteningError(NAMES_ARE_LOST)
    return modules, mode


def _softly(parallel_apply: Callable[..., Any]) -> Callable[..., Any]:
    """DataParallel's `parallel_apply`, whose threads take on the softening of the calling one."""

    def apply(replicas: Sequence[nn.Module], *args: Any) -> Any:
        mode = innermost()
        if mode is None:
            return parallel_apply(replicas, *args)
        return parallel_apply([functools.partial(_run, mode.fork(), r) for r in replicas], *args)

    return apply


def _run(mode: SofteningMode, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    with mode:
        return module(*args, **kwargs)
