"""The pullback of a hidden unit, and the pullback to a hidden layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from captum.attr import (
    GradientAttribution,
    LayerAttribution,
    LayerGradientXActivation,
    NeuronAttribution,
    NeuronGradient,
)
from captum.log import log_usage
from torch import Tensor, nn

from captum_pullback.engine.graph import mark_source
from captum_pullback.engine.models import named_modules
from captum_pullback.engine.rules import RulesLike
from captum_pullback.engine.softness import DEFAULT_TEMPERATURE, Softness
from captum_pullback.engine.temperature import TemperatureLike
from captum_pullback.pullback.call import Inputs, Pullback, Target
from captum_pullback.pullback.misfits import selector_misfit

__all__ = ["LayerExcitationPullback", "NeuronExcitationPullback"]


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
            additional_forward_args: Additional arguments of the network, not attributed to.
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
            inputs: A tensor of shape (N, ...), or a tuple of such; integers too, such as token ids
                for an embedding layer.
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
