r"""The Captum attributions: Captum's own gradient methods, run while the gates are soft.

What an input, a target or a layer may be, and how a model is called, is Captum's. What a gate
passes on is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from captum.attr import (
    GradientAttribution,
    LayerAttribution,
    LayerGradientXActivation,
    NeuronAttribution,
    NeuronGradient,
    Saliency,
)
from captum.log import log_usage
from torch import Tensor, nn

from captum_pullback.engine.graph import mark_source
from captum_pullback.engine.models import named_modules
from captum_pullback.engine.rules import RulesLike
from captum_pullback.engine.softness import DEFAULT_TEMPERATURE, Softness
from captum_pullback.engine.temperature import TemperatureLike
from captum_pullback.pullback.batches import check_rows, in_chunks
from captum_pullback.pullback.call import Inputs, Pullback, Target
from captum_pullback.pullback.misfits import selector_misfit

__all__ = ["ExcitationPullback", "LayerExcitationPullback", "NeuronExcitationPullback"]


class ExcitationPullback(Pullback, GradientAttribution):  # type: ignore[misc]
    r"""The input gradient taken while the gates are soft.

    .. math::
        A(x) = \nabla_x f_c(x) \quad\text{with}\quad
        1[z > 0] \to \sigma(z / T) \text{ in the backward pass}

    Forward values stay exact. It costs one gradient. Source: arXiv 2507.22832. It is a local
    attribution like a gradient, or, with ``multiply_by_inputs``, one in the units of the output.

    Args:
        forward_func: The network, or any callable that gives a tensor of shape (N, ...).
        temperature: 0 (gates as they are) to inf, a `Spread`, or a mapping: see `soften`.
        pool_temperature: The same for max pooling; None follows ``temperature``.
        rules: What is held of each kind of gate: see `soften`.
        multiply_by_inputs: Whether to multiply the pullback by the input.

    Raises:
        TypeError: A scripted or traced model, or something that is no temperature.
        ValueError: A temperature that is negative, NaN, or names no module.

    Example:
        >>> x = torch.tensor([[-1.0, 0.0, 1.0]])
        >>> ExcitationPullback(nn.ReLU(), temperature=1.0).attribute(x, target=[2])
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
            internal_batch_size: How many examples go through the network at once, for batches
                that do not fit into memory; tensors of N rows among ``additional_forward_args``
                are cut alike. The result is the same, up to the order in which PyTorch's
                kernels sum. None is all of them.

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
        (found,) = self._attribute(inputs, [target], additional_forward_args, internal_batch_size)
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

        It gives to the last bit what one `attribute` for each target gives.

        Args:
            inputs: As for `attribute`.
            targets: At least one target, each as `attribute` takes it: ``[3, 7]`` are two classes
                for all examples, ``[[3, 7], [1, 2]]`` two for each of two examples.
            additional_forward_args: As for `attribute`.
            internal_batch_size: As for `attribute`.

        Returns:
            As `attribute`, with one more dimension in front, of the targets: (T, N, ...).

        Raises:
            TypeError, ValueError: As `attribute`, and ``targets`` that are no sequence, or empty.
            AssertionError, IndexError, SofteningError: As `attribute`.

        Example:
            >>> x = torch.tensor([[-1.0, 0.0, 1.0]])
            >>> ExcitationPullback(nn.ReLU(), temperature=1.0).attribute_targets(x, [0, 2])
            tensor([[[0.2689, 0.0000, 0.0000]],
            <BLANKLINE>
                    [[0.0000, 0.0000, 0.7311]]])
        """
        if isinstance(targets, Tensor):
            targets = list(targets)
        if not isinstance(targets, Sequence):
            raise TypeError(f"targets must be a sequence of targets, not {type(targets).__name__}")
        if not targets:
            raise ValueError("targets is empty: give at least one")
        found = self._attribute(inputs, list(targets), additional_forward_args, internal_batch_size)
        stacked: Inputs = _over_parts(torch.stack, found)
        return stacked

    def _attribute(
        self, inputs: Inputs, targets: list[Target], extra: Any, size: int | None
    ) -> list[Inputs]:
        """The attributions of each target."""
        chunks = []
        for part, *others in in_chunks(inputs, extra, targets, size):
            found, output = self._attribute_chunk(part, *others)
            check_rows(output, part, inputs)
            chunks.append(found)
        if len(chunks) == 1:
            return chunks[0]
        return [_over_parts(torch.cat, list(parts)) for parts in zip(*chunks, strict=True)]

    def _attribute_chunk(
        self, inputs: Inputs, extra: Any, targets: list[Target]
    ) -> tuple[list[Inputs], Tensor]:
        """The attributions of each target, and the output."""
        output: list[Any] = []

        def run(forward: Callable[..., Any], leaves: Inputs) -> list[Inputs]:
            output.clear()

            def forward_once(*args: Any) -> Any:
                if not output:
                    output.append(forward(*args))
                return output[0]

            saliency = Saliency(forward_once)
            saliency.gradient_func = self.gradient_func
            return [
                saliency.attribute(leaves, target, abs=False, additional_forward_args=extra)
                for target in targets
            ]

        found = self._softly(inputs, run, gradients=len(targets))
        return [self._finished(gradients, inputs) for gradients in found], output[0].detach()


class NeuronExcitationPullback(Pullback, NeuronAttribution, GradientAttribution):  # type: ignore[misc]
    """The excitation pullback of a hidden unit instead of an output.

    Args:
        model: The network, or any callable that runs ``layer``.
        layer: The module whose unit is to be explained.
        temperature: As for `ExcitationPullback`.
        pool_temperature: As for `ExcitationPullback`.
        rules: As for `ExcitationPullback`.
        multiply_by_inputs: Whether to multiply the pullback by the input.

    Raises:
        TypeError: As for `ExcitationPullback`, and a ``layer`` that is no module.
        ValueError: As for `ExcitationPullback`, and a ``layer`` that is not in the model.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        layer: nn.Module,
        temperature: TemperatureLike = DEFAULT_TEMPERATURE,
        *,
        pool_temperature: TemperatureLike | None = None,
        rules: RulesLike | None = None,
        multiply_by_inputs: bool = False,
    ) -> None:
        _check_layer(model, layer)
        NeuronAttribution.__init__(self, model, layer)
        GradientAttribution.__init__(self, model)
        self._configure(Softness(temperature, pool_temperature, rules), multiply_by_inputs)

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Inputs,
        neuron_selector: Any,
        additional_forward_args: Any = None,
        attribute_to_neuron_input: bool = False,
    ) -> Inputs:
        """Attribute the activation of one unit of the layer to the inputs.

        Args:
            inputs: A tensor of shape (N, ...), or a tuple of such, of floating point.
            neuron_selector: The unit: an int or a tuple of ints and slices that indexes the
                layer's output without its batch dimension (a slice sums over units), or a
                callable from the layer's output to one number per example.
            additional_forward_args: Further arguments of the network, not attributed to.
            attribute_to_neuron_input: Whether to explain the layer's input instead.

        Returns:
            As `ExcitationPullback.attribute`, in units of the activation.

        Raises:
            TypeError, SofteningError: As `ExcitationPullback.attribute`.
            AssertionError, IndexError, ValueError: A selector that does not fit the layer
                (Captum's types).
        """

        def run(forward: Callable[..., Any], leaves: Inputs) -> Inputs:
            return NeuronGradient(forward, self.layer).attribute(  # type: ignore[no-any-return]
                leaves, neuron_selector, additional_forward_args, attribute_to_neuron_input
            )

        gradients: Inputs = self._softly(inputs, run, hidden=True, misfit=selector_misfit)
        return self._finished(gradients, inputs)


class LayerExcitationPullback(Pullback, LayerAttribution, GradientAttribution):  # type: ignore[misc]
    """The excitation pullback to a hidden layer instead of the input.

    Args:
        forward_func: The network, or any callable that runs ``layer``.
        layer: The module to attribute to.
        temperature: As for `ExcitationPullback`.
        pool_temperature: As for `ExcitationPullback`.
        rules: As for `ExcitationPullback`.
        multiply_by_inputs: Whether to multiply the pullback by the layer's activation.

    Raises:
        TypeError: As for `ExcitationPullback`, and a ``layer`` that is no module.
        ValueError: As for `ExcitationPullback`, and a ``layer`` that is not in the model.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module,
        temperature: TemperatureLike = DEFAULT_TEMPERATURE,
        *,
        pool_temperature: TemperatureLike | None = None,
        rules: RulesLike | None = None,
        multiply_by_inputs: bool = False,
    ) -> None:
        _check_layer(forward_func, layer)
        LayerAttribution.__init__(self, forward_func, layer)
        GradientAttribution.__init__(self, forward_func)
        self._configure(Softness(temperature, pool_temperature, rules), multiply_by_inputs)

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Target = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        """Attribute the target's score to the layer's output.

        Args:
            inputs: A tensor of shape (N, ...), or a tuple of such; integers too, such as the token
                ids of which an embedding layer makes vectors.
            target: As for `ExcitationPullback.attribute`.
            additional_forward_args: Further arguments of the network.
            attribute_to_layer_input: Whether to attribute to the layer's input instead.

        Returns:
            A tensor, or a tuple of tensors, of the shape of the layer's output (or input).

        Raises:
            TypeError, AssertionError, IndexError, SofteningError: As
                `ExcitationPullback.attribute`.
        """

        def run(forward: Callable[..., Any], leaves: Any) -> Any:
            method = LayerGradientXActivation(
                forward, self.layer, multiply_by_inputs=self.multiplies_by_inputs
            )
            return method.attribute(
                leaves, target, additional_forward_args, attribute_to_layer_input
            )

        with _as_source(self.layer, attribute_to_layer_input):
            attributions = self._softly(inputs, run, integers=True, hidden=True)
        if isinstance(attributions, Tensor):
            return attributions.detach().contiguous()
        return tuple(part.detach().contiguous() for part in attributions)


@contextmanager
def _as_source(layer: nn.Module, of_its_input: bool) -> Iterator[None]:
    """Let what a layer gives (or gets) be what products depend on: token ids have no gradient."""

    def mark(given: Any) -> None:
        for part in given if isinstance(given, tuple) else (given,):
            if isinstance(part, Tensor):
                mark_source(part)

    if of_its_input:
        handle = layer.register_forward_pre_hook(lambda module, args: mark(args))
    else:
        handle = layer.register_forward_hook(lambda module, args, output: mark(output))
    try:
        yield
    finally:
        handle.remove()


def _check_layer(model: Callable[..., Any], layer: nn.Module) -> None:
    if not isinstance(layer, nn.Module):
        raise TypeError(
            f"layer must be a torch.nn.Module of the model, not {type(layer).__name__}; by its "
            "name it is model.get_submodule(name)"
        )
    modules = [module for _, module in named_modules(model)]
    if modules and not any(module is layer for module in modules):
        raise ValueError(f"layer {type(layer).__name__} is not a module of this model")


def _over_parts(join: Callable[[list[Tensor]], Tensor], attributions: list[Any]) -> Any:
    """Join attributions, which are tensors, or tuples of tensors to be joined part by part."""
    if isinstance(attributions[0], Tensor):
        return join(attributions)
    return tuple(join(list(parts)) for parts in zip(*attributions, strict=True))
