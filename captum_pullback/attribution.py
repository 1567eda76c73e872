r"""The Captum attributions: Captum's own gradient methods, run while the gates are soft.

What an input, a target or a layer may be, and how a model is called, is Captum's. What a gate
passes on is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

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

from .gates import GateInputChangedError
from .models import as_tuple, named_modules
from .softening import check, soften_for_inputs
from .temperature import TemperatureLike

__all__ = ["ExcitationPullback", "LayerExcitationPullback", "NeuronExcitationPullback"]

Inputs = TypeVar("Inputs", Tensor, tuple[Tensor, ...])
#: As in Captum: a class for all examples (int, or tuple for outputs of more dimensions), or one
#: for each (list or tensor).
Target = Any


class _Pullback:
    """What the three attributions share: the temperatures, and a call of the softened model."""

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
        self, inputs: Tensor | tuple[Tensor, ...], run: Callable[[Callable[..., Any], Any], Any]
    ) -> Any:
        """What ``run(forward, inputs)`` gives while the gates are soft.

        The inputs are leaves of their own, so that the caller's flags stay as they are, and the
        network gets copies, so that one that works in place leaves the caller's data alone.
        """
        leaves = _leaves(inputs)
        count = len(leaves)
        output: list[Any] = []

        def forward(*args: Any) -> Any:
            output.clear()
            copies = (leaf.clone() for leaf in args[:count])
            output.append(self.forward_func(*copies, *args[count:]))
            return output[0]

        # Captum looks here for the order of a DataParallel's devices.
        if hasattr(self.forward_func, "device_ids"):
            forward.device_ids = self.forward_func.device_ids  # type: ignore[attr-defined]

        def softly(keep_copies: bool) -> Any:
            softening = soften_for_inputs(
                self.forward_func, self.temperature, self.pool_temperature, keep_copies=keep_copies
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
            # errors, which can be anything, only a bad index is known.
            unknown = isinstance(error, RuntimeError) and "out of bounds" not in str(error)
            if not output or unknown:
                raise
            raise _explained(error, output[0]) from error

    def _finished(self, gradients: Inputs, inputs: Inputs) -> Inputs:
        if isinstance(gradients, tuple):
            return tuple(map(self._finished, gradients, inputs))
        # Captum's metrics call .view on attributions, also where inputs are channels-last.
        if self.multiplies_by_inputs:
            gradients = gradients * inputs.detach()
        return gradients.contiguous()


class ExcitationPullback(_Pullback, GradientAttribution):  # type: ignore[misc]
    r"""The input gradient taken while the gates are soft.

    .. math::
        A(x) = \nabla_x f_c(x) \quad\text{with}\quad
        1[z > 0] \to \sigma(z / T) \text{ in the backward pass}

    Forward values stay exact. It costs one gradient. Source: arXiv 2507.22832. It is a local
    attribution like a gradient, or, with ``multiply_by_inputs``, one in the units of the output.

    Args:
        forward_func: The network, or any callable that gives a tensor of shape (N, ...).
        temperature: 0 (the plain gradient) to inf, or a mapping from module names: see `soften`.
        pool_temperature: The same for max pooling; None follows ``temperature``.
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
        temperature: TemperatureLike = 0.3,
        *,
        pool_temperature: TemperatureLike | None = None,
        multiply_by_inputs: bool = False,
    ) -> None:
        GradientAttribution.__init__(self, forward_func)
        self._configure(temperature, pool_temperature, multiply_by_inputs)

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self, inputs: Inputs, target: Target = None, additional_forward_args: Any = None
    ) -> Inputs:
        """Attribute the target's score to the inputs.

        Args:
            inputs: A tensor of shape (N, ...), or a tuple of such, of floating point.
            target: The output to explain, as in every Captum attribution: an int or a tuple for
                all examples, a list or tensor with one for each; None where the output has one
                number per example.
            additional_forward_args: Further arguments of the network, not attributed to.

        Returns:
            A contiguous tensor, or a tuple of tensors, of the shapes and types of the inputs; in
            units of the output per unit of input, or with ``multiply_by_inputs`` of the output.

        Raises:
            TypeError: Inputs that are not tensors of floating point.
            AssertionError, IndexError: A target that does not fit the output (Captum's types).
            SofteningError: Nothing was softened, or `torch.inference_mode` is on.
        """

        def run(forward: Callable[..., Any], leaves: Inputs) -> Inputs:
            saliency = Saliency(forward)
            saliency.gradient_func = self.gradient_func
            return saliency.attribute(  # type: ignore[no-any-return]
                leaves, target, abs=False, additional_forward_args=additional_forward_args
            )

        gradients: Inputs = self._softly(inputs, run)
        return self._finished(gradients, inputs)


class NeuronExcitationPullback(_Pullback, NeuronAttribution, GradientAttribution):  # type: ignore[misc]
    """The excitation pullback of a hidden unit instead of an output.

    Args:
        model: The network, or any callable that runs ``layer``.
        layer: The module whose unit is to be explained.
        temperature: As for `ExcitationPullback`.
        pool_temperature: As for `ExcitationPullback`.
        multiply_by_inputs: Whether to multiply the pullback by the input.

    Raises:
        TypeError: As for `ExcitationPullback`, and a ``layer`` that is no module.
        ValueError: As for `ExcitationPullback`, and a ``layer`` that is not in the model.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        layer: nn.Module,
        temperature: TemperatureLike = 0.3,
        *,
        pool_temperature: TemperatureLike | None = None,
        multiply_by_inputs: bool = False,
    ) -> None:
        _check_layer(model, layer)
        NeuronAttribution.__init__(self, model, layer)
        GradientAttribution.__init__(self, model)
        self._configure(temperature, pool_temperature, multiply_by_inputs)

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

        gradients: Inputs = self._softly(inputs, run)
        return self._finished(gradients, inputs)


class LayerExcitationPullback(_Pullback, LayerAttribution, GradientAttribution):  # type: ignore[misc]
    """The excitation pullback to a hidden layer instead of the input.

    Args:
        forward_func: The network, or any callable that runs ``layer``.
        layer: The module to attribute to.
        temperature: As for `ExcitationPullback`.
        pool_temperature: As for `ExcitationPullback`.
        multiply_by_inputs: Whether to multiply the pullback by the layer's activation.

    Raises:
        TypeError: As for `ExcitationPullback`, and a ``layer`` that is no module.
        ValueError: As for `ExcitationPullback`, and a ``layer`` that is not in the model.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module,
        temperature: TemperatureLike = 0.3,
        *,
        pool_temperature: TemperatureLike | None = None,
        multiply_by_inputs: bool = False,
    ) -> None:
        _check_layer(forward_func, layer)
        LayerAttribution.__init__(self, forward_func, layer)
        GradientAttribution.__init__(self, forward_func)
        self._configure(temperature, pool_temperature, multiply_by_inputs)

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
            inputs: A tensor of shape (N, ...), or a tuple of such, of floating point.
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

        attributions = self._softly(inputs, run)
        if isinstance(attributions, Tensor):
            return attributions.detach().contiguous()
        return tuple(part.detach().contiguous() for part in attributions)


def _leaves(inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    tensors = as_tuple(inputs)
    for number, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"inputs must be a tensor or a tuple of tensors, but part {number} is "
                f"{type(tensor).__name__}"
            )
        if not (tensor.is_floating_point() or tensor.is_complex()):
            raise TypeError(
                f"inputs must be of floating point to have gradients, but part {number} is "
                f"{tensor.dtype}: attribute to an embedding layer instead, or pass it in "
                "additional_forward_args"
            )
        if tensor.is_inference():
            raise TypeError(
                f"part {number} of inputs was made in torch.inference_mode() and can have no "
                "gradients: pass inputs.clone()"
            )
    return tuple(tensor.detach().requires_grad_() for tensor in tensors)


def _check_layer(model: Callable[..., Any], layer: nn.Module) -> None:
    if not isinstance(layer, nn.Module):
        raise TypeError(
            f"layer must be a torch.nn.Module of the model, not {type(layer).__name__}; by its "
            "name it is model.get_submodule(name)"
        )
    modules = [module for _, module in named_modules(model)]
    if modules and not any(module is layer for module in modules):
        raise ValueError(f"layer {type(layer).__name__} is not a module of this model")


def _explained(error: Exception, output: Any) -> Exception:
    """The same kind of error, saying what came out of the network and what may be selected."""
    if isinstance(output, Tensor):
        came = f"the output has shape {tuple(output.shape)}"
        advice = (
            "give target=None only for one number per example; otherwise an index below "
            f"{output.shape[-1]}, or a list or tensor with one for each of the {len(output)} "
            "examples"
            if output.dim() > 1
            else "one number per example takes target=None"
        )
    else:
        came = f"forward_func returned a {type(output).__name__}"
        advice = "it must return a tensor: wrap it, as in lambda x: model(x)[0]"
    kind = TypeError if isinstance(error, AttributeError) else type(error)
    return kind(f"the target does not fit the output: {error} ({came}; {advice})")
