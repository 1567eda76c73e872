"""What the attributions share: their temperatures, and a call of the network while it is soft."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from captum_pullback.engine.errors import GateInputChangedError
from captum_pullback.engine.mode import LeaveLeanError
from captum_pullback.engine.models import leaves_of, modules_of, on_copies
from captum_pullback.engine.softening import (
    check,
    forward_pass,
    resolver_of,
    soften_for_inputs,
)
from captum_pullback.engine.softness import HasSoftness, Softness
from captum_pullback.pullback.misfits import target_misfit

__all__ = ["Inputs", "Pullback", "Target"]

Inputs = TypeVar("Inputs", Tensor, tuple[Tensor, ...])
#: As in Captum: a class for all examples (int, or tuple for outputs of more dimensions), or one
#: for each (list or tensor).
Target = Any


class Pullback(HasSoftness):
    """Temperatures, and calls of a model at them."""

    forward_func: Callable[..., Any]

    def _configure(self, softness: Softness, multiply_by_inputs: bool) -> None:
        check(self.forward_func, softness)
        self.softness = softness
        self._multiply_by_inputs = multiply_by_inputs

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether attributions are multiplied by what they are attributed to.

        `captum.metrics.infidelity` wants to know: pair False with a perturbation function
        decorated by ``infidelity_perturb_func_decorator(multiply_by_inputs=False)``, and True with
        one decorated with True.
        """
        return self._multiply_by_inputs

    def _softly(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        run: Callable[[Callable[..., Any], Any], Any],
        *,
        integers: bool = False,
        hidden: bool = False,
        misfit: Callable[..., Exception] | None = None,
    ) -> Any:
        """What ``run(forward, inputs)`` gives while the gates are soft.

        ``integers`` says whether inputs may be without gradients, ``hidden`` whether it is a
        hidden layer that is explained, and ``misfit``, one of `misfits`, makes the error of what
        was selected; if None, it is about the target.
        """
        (found,) = self._from_one_pass(
            [self.softness], inputs, run, integers=integers, hidden=hidden, misfit=misfit
        )
        return found

    def _softly_at(
        self,
        softnesses: Sequence[Softness],
        inputs: Tensor | tuple[Tensor, ...],
        run: Callable[[Callable[..., Any], Any], Any],
        gradients: int,
    ) -> list[Any]:
        """What ``run(forward, inputs)`` gives at each softness, from few forward passes.

        The forward pass is the same at each, and calls of gates learn of a temperature only when
        their backward pass runs. But a hard gate is PyTorch's own, and a compiled graph has its
        temperature built in: such a softness has a forward pass of its own. ``gradients`` says how
        many ``run`` takes.
        """
        found: list[Any] = []
        for _, group in itertools.groupby(softnesses, key=lambda each: each.is_hard):
            waiting, together = list(group), True
            while waiting:
                asked = waiting if together else waiting[:1]
                new = self._from_one_pass(asked, inputs, run, gradients=gradients)
                together = len(new) == len(asked) > 1
                waiting = waiting[len(new) :]
                found += new
        return found

    def _from_one_pass(
        self,
        softnesses: Sequence[Softness],
        inputs: Tensor | tuple[Tensor, ...],
        run: Callable[[Callable[..., Any], Any], Any],
        *,
        gradients: int = 1,
        integers: bool = False,
        hidden: bool = False,
        misfit: Callable[..., Exception] | None = None,
    ) -> list[Any]:
        """What ``run(forward, inputs)`` gives at the first softness, and at those that follow.

        As far as one forward pass serves them.

        The inputs are leaves of their own, so that the caller's flags stay as they are, and the
        network gets copies, so that one that works in place leaves the caller's data alone.
        """
        leaves = leaves_of(inputs, integers=integers)
        count = len(leaves)
        output: list[Any] = []

        first = leaves[0] if leaves else None
        batch = len(first) if first is not None and first.dim() else None
        has_spread, modes = any(each.has_spread for each in softnesses), list[Any]()
        total = gradients * len(softnesses)

        def forward(*args: Any) -> Any:
            if output and total > 1:  # which several gradients are taken of
                return output[0]
            output.clear()
            with forward_pass(modes[-1]):
                output.append(on_copies(self.forward_func, args[:count], args[count:]))
            if has_spread and modes[-1].batch == batch and _is_sequence_first(first, output[0]):
                raise _SequenceFirstError
            return output[0]

        # Captum looks here for the order of a DataParallel's devices.
        if hasattr(self.forward_func, "device_ids"):
            forward.device_ids = self.forward_func.device_ids  # type: ignore[attr-defined]

        def softly(batch: int | None, *, full: bool) -> list[Any]:
            output.clear()
            softness, *others = softnesses
            softening = soften_for_inputs(
                self.forward_func,
                softness,
                full=full,
                gradients=total,
                batch=batch,
                tolerates_linear=hidden,
            )
            given = leaves if isinstance(inputs, tuple) else leaves[0]
            with softening as mode, torch.enable_grad():
                modes.append(mode)
                mode.record.calls = [] if others else None
                found = [run(forward, given)]
                for softness in others:
                    if not mode.turn(resolver_of(self.forward_func, softness)):
                        break
                    found.append(run(forward, given))
                return found

        try:
            with _state_of(self.forward_func, leaves) as restore:
                examples, full = batch, False
                while True:
                    try:
                        return softly(examples, full=full)
                    except _SequenceFirstError:
                        examples = first.shape[1]  # type: ignore[union-attr]
                    except RuntimeError as error:
                        if full or not _wants_all(error):
                            raise
                        full = True
                    restore()
        except (
            AssertionError,
            AttributeError,
            IndexError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            # After the forward pass it is Captum that could not use what came out. Of runtime
            # errors, which can be anything, only a bad index and too few of them are known.
            known = "out of bounds" in str(error) or "only for scalar outputs" in str(error)
            unknown = isinstance(error, RuntimeError) and not known
            if not output or unknown:
                raise
            layer = getattr(self, "layer", None)
            raise (misfit or target_misfit)(error, output[0], leaves, layer) from error

    def _finished(self, gradients: Inputs, inputs: Inputs) -> Inputs:
        if isinstance(gradients, tuple):
            return tuple(map(self._finished, gradients, inputs))
        # Captum's metrics call .view on attributions, also where inputs are channels-last.
        if self.multiplies_by_inputs:
            gradients = gradients * inputs.detach()
        return gradients.contiguous()


class _SequenceFirstError(RuntimeError):
    """Examples lie along the second dimension of the inputs, as only the output has told."""


def _is_sequence_first(inputs: Tensor | None, output: Any) -> bool:
    """Whether inputs are (T, N, ...): there are N outputs, and not T."""
    if inputs is None or inputs.dim() < 3 or not isinstance(output, Tensor) or not output.dim():
        return False
    return len(output) != len(inputs) and len(output) == inputs.shape[1]


def _wants_all(error: RuntimeError) -> bool:
    """Whether a network needs copies of what it changes, or gradients of its own."""
    known = isinstance(error, (GateInputChangedError, LeaveLeanError))
    return known or re.search("in-?place|inplace", str(error)) is not None


@contextmanager
def _state_of(
    model: Callable[..., Any], inputs: tuple[Tensor, ...]
) -> Iterator[Callable[[], None]]:
    """What undoes the changes of a forward pass in training mode, before it is run once more."""
    modules = [module for module in modules_of(model) if module.training]
    buffers = [
        (buffer, buffer.clone()) for module in modules for buffer in module.buffers(recurse=False)
    ]
    devices = {part.device for part in inputs if part.device.type == "cuda"}
    numbers = torch.get_rng_state()
    theirs = [(device, torch.cuda.get_rng_state(device)) for device in devices]

    def restore() -> None:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        torch.set_rng_state(numbers)
        for device, state in theirs:
            torch.cuda.set_rng_state(state, device)

    yield restore
