"""What the attributions share: their temperatures, and a call of the network while it is soft."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from captum_pullback.engine.gates import GateInputChangedError
from captum_pullback.engine.models import leaves_of, on_copies
from captum_pullback.engine.softening import check, soften_for_inputs
from captum_pullback.engine.temperature import TemperatureLike
from captum_pullback.misfits import target_misfit

__all__ = ["Inputs", "Pullback", "Target"]

Inputs = TypeVar("Inputs", Tensor, tuple[Tensor, ...])
#: As in Captum: a class for all examples (int, or tuple for outputs of more dimensions), or one
#: for each (list or tensor).
Target = Any


class Pullback:
    """Temperatures, and calls of a model at them."""

    forward_func: Callable[..., Any]

    def _configure(
        self,
        temperature: TemperatureLike,
        pool_temperature: TemperatureLike | None,
        multiply_by_inputs: bool,
    ) -> None:
        check(self.forward_func, temperature, pool_temperature)
        self.temperature = temperature
        self.pool_temperature = pool_temperature
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
        gradients: int = 1,
        integers: bool = False,
        misfit: Callable[..., Exception] | None = None,
    ) -> Any:
        """What ``run(forward, inputs)`` gives while the gates are soft.

        The inputs are leaves of their own, so that the caller's flags stay as they are, and the
        network gets copies, so that one that works in place leaves the caller's data alone.
        ``gradients`` says how many ``run`` takes of one forward pass, ``integers`` whether inputs
        may be without gradients, and ``misfit``, one of `misfits`, makes the error of what was
        selected; if None, it is about the target.
        """
        leaves = leaves_of(inputs, integers=integers)
        count = len(leaves)
        output: list[Any] = []

        def forward(*args: Any) -> Any:
            output.clear()
            output.append(on_copies(self.forward_func, args[:count], args[count:]))
            return output[0]

        # Captum looks here for the order of a DataParallel's devices.
        if hasattr(self.forward_func, "device_ids"):
            forward.device_ids = self.forward_func.device_ids  # type: ignore[attr-defined]

        def softly(keep_copies: bool) -> Any:
            softening = soften_for_inputs(
                self.forward_func,
                self.temperature,
                self.pool_temperature,
                keep_copies=keep_copies,
                gradients=gradients,
            )
            with softening, torch.enable_grad():
                return run(forward, leaves if isinstance(inputs, tuple) else leaves[0])

        try:
            try:
                return softly(keep_copies=False)
            except RuntimeError as error:
                changed = "inplace operation" in str(error)
                if not (changed or isinstance(error, GateInputChangedError)):
                    raise
                return softly(keep_copies=True)
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
