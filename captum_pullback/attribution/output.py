"""The pullback of an output to the inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from captum.attr import GradientAttribution
from captum.log import log_usage
from torch import Tensor

from captum_pullback.engine.rules import RulesLike
from captum_pullback.engine.softening import check
from captum_pullback.engine.softness import DEFAULT_TEMPERATURE, Softness
from captum_pullback.engine.temperature import TemperatureLike
from captum_pullback.pullback.call import Inputs, Target
from captum_pullback.pullback.sweep import Sweep, over_parts

__all__ = ["ExcitationPullback"]


class ExcitationPullback(Sweep, GradientAttribution):  # type: ignore[misc]
    r"""The input gradient taken while the gates are soft.

    .. math::
        A(x) = \nabla_x f_c(x) \quad\text{with}\quad
        1[z > 0] \to \sigma(z / T) \text{ in the backward pass}

    The forward pass is unchanged, and the cost is that of one gradient. Source: arXiv 2507.22832.
    It is a local attribution, like a gradient; with ``multiply_by_inputs`` it is in the units of
    the output.

    Args:
        forward_func: The network, or any callable that returns a tensor of shape (N, ...).
        temperature: 0 (gates as they are) to inf, a `Spread`, or a mapping: see `soften`.
        pool_temperature: The same for max pooling; None follows ``temperature``.
        rules: What is held of each kind of gate: see `soften`.
        multiply_by_inputs: Whether to multiply the pullback by the input.

    Raises:
        TypeError: A scripted or traced model, or an invalid temperature.
        ValueError: A temperature that is negative, NaN, or names no module.

    Example:
        >>> x = torch.tensor([[-1.0, 0.0, 1.0]])
        >>> ExcitationPullback(torch.relu, temperature=1.0).attribute(x, target=[2])
        tensor([[0.0000, 0.0000, 0.7311]])
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        temperature: TemperatureLike = DEFAULT_TEMPERATURE,
        *,
        pool_temperature: TemperatureLike | None = None,
        rules: RulesLike | None = None,
        multiply_by_inputs: bool = False,
    ) -> None:
        GradientAttribution.__init__(self, forward_func)
        self._configure(Softness(temperature, pool_temperature, rules), multiply_by_inputs)

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Inputs,
        target: Target = None,
        additional_forward_args: Any = None,
        *,
        internal_batch_size: int | None = None,
    ) -> Inputs:
        """Attribute the target's score to the inputs.

        Args:
            inputs: A tensor of shape (N, ...), or a tuple of such, of floating point.
            target: The output to explain, as in every Captum attribution: an int or a tuple for
                all examples, a list or tensor with one for each; None where the output has one
                number per example.
            additional_forward_args: Further arguments of the network, not attributed to.
            internal_batch_size: How many examples go through the network at once, for batches that
                do not fit into memory; tensors of N rows among ``additional_forward_args`` are
                split likewise. The result is the same, up to the order in which PyTorch's kernels
                sum. None means all at once.

        Returns:
            A contiguous tensor, or a tuple of tensors, of the shapes and types of the inputs; in
            units of the output per unit of input, or with ``multiply_by_inputs`` of the output.

        Raises:
            TypeError: Inputs that are not tensors of floating point.
            ValueError: An ``internal_batch_size`` below 1, or one where the first dimension of
                the inputs is not that of the output.
            AssertionError, IndexError: A target that does not fit the output (Captum's types).
            SofteningError: Nothing was softened, or `torch.inference_mode` is on.
        """
        ((found,),) = self.sweep(
            [self.softness], inputs, [target], additional_forward_args, internal_batch_size
        )
        return found

    def attribute_targets(
        self,
        inputs: Inputs,
        targets: Sequence[Target],
        additional_forward_args: Any = None,
        *,
        internal_batch_size: int | None = None,
    ) -> Inputs:
        """Attribute several targets of the same inputs, from one forward pass.

        The result is that of one `attribute` call per target, bit for bit. There is one backward
        pass per target.

        Args:
            inputs: As for `attribute`.
            targets: At least one target, each as `attribute` takes it: ``[3, 7]`` are two classes
                for all examples, ``[[3, 7], [1, 2]]`` two for each of two examples.
            additional_forward_args: As for `attribute`.
            internal_batch_size: As for `attribute`.

        Returns:
            As `attribute`, with an additional first dimension for the targets: (T, N, ...).

        Raises:
            TypeError, ValueError: As `attribute`, and ``targets`` that are not a sequence, or
                empty.
            AssertionError, IndexError, SofteningError: As `attribute`.

        Example:
            >>> x = torch.tensor([[-1.0, 0.0, 1.0]])
            >>> ExcitationPullback(torch.relu, temperature=1.0).attribute_targets(x, [0, 2])
            tensor([[[0.2689, 0.0000, 0.0000]],
            <BLANKLINE>
                    [[0.0000, 0.0000, 0.7311]]])
        """
        given = _several(targets, "targets")
        (found,) = self.sweep(
            [self.softness], inputs, given, additional_forward_args, internal_batch_size
        )
        stacked: Inputs = over_parts(torch.stack, found)
        return stacked

    def attribute_temperatures(
        self,
        inputs: Inputs,
        temperatures: Sequence[TemperatureLike],
        target: Target = None,
        additional_forward_args: Any = None,
        *,
        internal_batch_size: int | None = None,
    ) -> Inputs:
        """Attribute one target at several temperatures, from one forward pass where possible.

        The result is that of one `attribute` call per temperature, bit for bit. A temperature of 0
        and a compiled network need additional forward passes.

        Args:
            inputs: As for `attribute`.
            temperatures: At least one, each as `ExcitationPullback` takes it, in place of its own;
                its ``pool_temperature`` and ``rules`` stay.
            target: As for `attribute`.
            additional_forward_args: As for `attribute`.
            internal_batch_size: As for `attribute`.

        Returns:
            As `attribute`, with an additional first dimension for the temperatures: (T, N, ...).

        Raises:
            TypeError, ValueError: As `attribute` and `ExcitationPullback`, and ``temperatures``
                that are not a sequence, or empty.
            AssertionError, IndexError, SofteningError: As `attribute`.

        Example:
            >>> x = torch.tensor([[-1.0, 0.0, 1.0]])
            >>> ExcitationPullback(torch.relu).attribute_temperatures(x, [0, 1, 2], target=2)
            tensor([[[0.0000, 0.0000, 1.0000]],
            <BLANKLINE>
                    [[0.0000, 0.0000, 0.7311]],
            <BLANKLINE>
                    [[0.0000, 0.0000, 0.6225]]])
        """
        given = _several(temperatures, "temperatures")
        softnesses = [replace(self.softness, temperature=temperature) for temperature in given]
        for softness in softnesses:
            check(self.forward_func, softness)
        found = self.sweep(
            softnesses, inputs, [target], additional_forward_args, internal_batch_size
        )
        stacked: Inputs = over_parts(torch.stack, [each for (each,) in found])
        return stacked


def _several(given: Any, what: str) -> list[Any]:
    """A sequence of targets or temperatures, of one at least."""
    if isinstance(given, Tensor):
        given = list(given)
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise TypeError(f"{what} must be a sequence of {what}, not {type(given).__name__}")
    if not given:
        raise ValueError(f"{what} is empty: give at least one")
    return list(given)
