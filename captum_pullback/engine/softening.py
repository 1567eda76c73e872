"""How the gates of a forward pass are swapped for soft ones, for a while.

The mode that runs them belongs to a thread and to a `with` block, and the state of a gate to one
call: nothing is left behind or seen elsewhere.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_pullback.engine._torch import (
    end_interrupted_calls,
    is_compiled_module,
    leave_mode,
    modes,
    module_key,
)
from captum_pullback.engine.errors import CheckpointMismatchError, SofteningError
from captum_pullback.engine.mode import NAMES_ARE_LOST, SofteningMode, State, innermost
from captum_pullback.engine.models import (
    modules_of,
    named_modules,
    refuse_scripted,
    replaced_method,
)
from captum_pullback.engine.record import SofteningRecord
from captum_pullback.engine.rules import EXCITATION, RulesLike
from captum_pullback.engine.softness import DEFAULT_TEMPERATURE, Resolver, Softness
from captum_pullback.engine.temperature import TemperatureLike

__all__ = [
    "check",
    "forward_pass",
    "refuse_inference_mode",
    "resolver_of",
    "soften",
    "soften_for_inputs",
    "watch",
]


@contextmanager
def soften(
    model: Callable[..., Any],
    temperature: TemperatureLike = DEFAULT_TEMPERATURE,
    *,
    pool_temperature: TemperatureLike | None = None,
    rules: RulesLike | None = None,
) -> Iterator[SofteningRecord]:
    r"""Make every gradient taken inside the block a pullback.

    Forward passes inside are unchanged, bit for bit. In backward passes, each gate is held fixed
    and softened: ReLU's :math:`1[z > 0]` is replaced by :math:`\sigma(z / T)`, a max pool's choice
    by a softmax of temperature :math:`T` (arXiv 2507.22832); for GELU, normalization and attention,
    the factor is held. This holds for whatever this thread runs in the block, so that any gradient
    method becomes its pullback version::

        with soften(model) as record:
            attribution = IntegratedGradients(model).attribute(x, target=3)
        print(record)

    Args:
        model: The network, or any callable. A `torch.nn.Module` gives names to its gates.
        temperature: In units of the pre-activations, from 0 (gates as they are) to inf (a linear
            network in which each ReLU passes one half); or a `Spread`, such as the default,
            ``Spread(1.0, "output")``, in units of what each gate gets. Or a mapping to these, or to
            tensors that broadcast against the gate's input (per channel: shape (C, 1, 1) for
            images), from module names, prefixes of module names, or kinds of gates; ``""`` stands
            for all the rest.
        pool_temperature: The same for max pooling. None follows ``temperature``; 0 keeps pooling
            hard. A tensor must broadcast against the pool's output, and be above 0.
        rules: What is held of each kind of gate: `SEMANTIC` (the default), `EXCITATION`, or a
            mapping of one's own.

    Yields:
        The record of what was softened and held, and of the nonlinearities that kept their
        derivative.

    Raises:
        TypeError: A scripted or traced model, or an invalid temperature or rule.
        ValueError: A temperature that is negative, NaN, of a shape that does not broadcast, or
            that names no module and no kind of gate.
        SofteningError: No gate lies on the path to what the gradient is taken with respect to, so
            it would be a plain one; or the block is inside `torch.inference_mode`, where there are
            no gradients.
        CheckpointMismatchError: The model uses activation checkpointing, and the gradient was taken
            after the block.

    Warns:
        UserWarning: No gate ran under an entry of a temperature.

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
        1 gate call softened, 0 gate calls held, 0 nonlinearity calls left hard
    """
    softness = Softness(temperature, pool_temperature, rules)
    with _softened(model, softness, lean=False) as mode:
        yield mode.record


@contextmanager
def soften_for_inputs(
    model: Callable[..., Any],
    softness: Softness,
    *,
    full: bool = False,
    gradients: int = 1,
    batch: int | None = None,
    tolerates_linear: bool = False,
) -> Iterator[SofteningMode]:
    """`soften`, with less memory, where nobody asks for gradients with respect to parameters.

    Args:
        model: The network, or any callable.
        softness: Temperatures and rules.
        full: For networks that change a gate's input in place after the gate has run, and those
            that take gradients themselves: gates keep copies, and all gradients can be taken.
        gradients: How many are going to be taken of one forward pass; for more than one, graphs
            are kept.
        batch: The number of examples, where it is known.
        tolerates_linear: Whether a gradient through what is linear alone is as good as any.
    """
    with _softened(model, softness, lean=not full, tolerates_linear=tolerates_linear) as mode:
        mode.keep_copies, mode.keep_graph = full, gradients > 1
        mode.once = not (full or gradients > 1)
        mode.batch = batch
        yield mode


@contextmanager
def _softened(
    model: Callable[..., Any], softness: Softness, *, lean: bool, tolerates_linear: bool = False
) -> Iterator[SofteningMode]:
    refuse_inference_mode()
    modules, mode = _prepare(model, softness)
    mode.lean = mode.record.is_lean = lean
    mode.may_be_plain = mode.resolver.rules.is_empty  # a plain gradient was asked for
    mode.tolerates_linear = tolerates_linear
    if not lean or mode.resolver.needs_names:
        mode.names = _names(model)
    else:
        mode.gates = {}
    try:
        with _installed(modules, mode):
            yield mode
    except GeneratorExit:
        _require_nesting(mode)
        raise
    _require_nesting(mode)
    if mode.record.will_run_again:
        raise CheckpointMismatchError
    if not (tolerates_linear and mode.record.has_gradient):
        mode.require_gates(allow_idle=True)
    if unused := mode.resolver.unused():
        warnings.warn(
            f"no gate ran under {', '.join(unused)}, so it had no effect: gates of functions "
            "belong to the module in whose forward they are called",
            UserWarning,
            stacklevel=6,
        )


def _require_nesting(mode: SofteningMode) -> None:
    if not mode.left_nested:
        raise SofteningError(
            "softening blocks of one thread were left in the wrong order: they must be nested, "
            "so the block that was entered last must be left first"
        )


@contextmanager
def watch(
    model: Callable[..., Any],
    see: Callable[[str, str, Tensor], None],
    rules: RulesLike = EXCITATION,
) -> Iterator[SofteningRecord]:
    """Show the input of each gate that softens in the block; gradients stay plain ones.

    Args:
        model: The network, or any callable.
        see: Called as ``see(module, operation, input)`` before the gate runs, with the names of
            `SofteningRecord`. A pool's operation has "pool" in its name.
        rules: Of the gates that are shown.
    """
    modules, mode = _prepare(model, Softness(0.0, rules=rules))
    mode.see = see
    mode.names = _names(model)
    with _installed(modules, mode):
        yield mode.record


@contextmanager
def forward_pass(mode: SofteningMode) -> Iterator[None]:
    """A block in which the network runs: gradients that are taken in it are its own."""
    mode.running += 1
    try:
        yield
    finally:
        mode.running -= 1


@contextmanager
def _installed(modules: list[nn.Module], mode: SofteningMode) -> Iterator[None]:
    try:
        with ExitStack() as undo:
            for module in modules:
                if isinstance(module, nn.DataParallel):
                    undo.enter_context(replaced_method(module, "parallel_apply", _softly))
            with mode:
                yield
    except (Exception, GeneratorExit):
        raise
    except BaseException as error:  # Ctrl-C
        end_interrupted_calls(error)
        raise
    finally:
        # Ctrl-C may come between any two steps of the above.
        while mode in modes():
            leave_mode(mode)


def refuse_inference_mode() -> None:
    """Raise SofteningError inside `torch.inference_mode`."""
    if torch.is_inference_mode_enabled():
        raise SofteningError(
            "there are no gradients in torch.inference_mode(): leave it, or use torch.no_grad()"
        )


def check(model: Callable[..., Any], softness: Softness) -> None:
    """Raise what `soften` would raise for these arguments, and do nothing else."""
    _prepare(model, softness)


def _prepare(
    model: Callable[..., Any], softness: Softness
) -> tuple[list[nn.Module], SofteningMode]:
    modules = modules_of(model)
    refuse_scripted(model, modules)
    resolver = resolver_of(model, softness)
    if resolver.needs_names and any(map(is_compiled_module, modules)):
        raise SofteningError(NAMES_ARE_LOST)
    return modules, SofteningMode(resolver)


def resolver_of(model: Callable[..., Any], softness: Softness) -> Resolver:
    """What answers for each gate of a model."""
    return softness.known or softness.resolver([name for name, _ in named_modules(model)])


def _names(model: Callable[..., Any]) -> dict[int, str]:
    return {module_key(module): name for name, module in named_modules(model)}


def _softly(parallel_apply: Callable[..., Any]) -> Callable[..., Any]:
    """DataParallel's `parallel_apply`, whose threads take on the softening of the calling one."""

    def apply(replicas: Sequence[nn.Module], *args: Any) -> Any:
        mode = innermost()
        if mode is None:
            return parallel_apply(replicas, *args)
        return parallel_apply([functools.partial(_run, mode.fork(), r) for r in replicas], *args)

    return apply


def _run(mode: State, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    if mode.batch is not None:  # of which this replica has a share
        tensors = [part for part in (*args, *kwargs.values()) if isinstance(part, Tensor)]
        mode.batch = len(tensors[0]) if tensors and tensors[0].dim() else None
    with mode:
        return module(*args, **kwargs)
