"""The inside of a network: layers, a hidden unit as a network of its own, layer attributions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from captum.attr import LayerGradientXActivation, LayerIntegratedGradients
from torch import Tensor, nn

from captum_pullback.app.question import Question, Selector
from captum_pullback.attribution import LayerExcitationPullback
from captum_pullback.engine.models import on_copies
from captum_pullback.study.errors import UsageError
from captum_pullback.study.methods import INTEGRATION_STEPS, METHODS, at_once
from captum_pullback.zoo.networks import Network

__all__ = ["Unit", "activation", "layer_attribution", "layers", "selector"]


def layers(network: Network) -> dict[str, tuple[int, ...]]:
    """Return the modules whose output is a picture or a vector, in the order in which they run.

    The last is ``""``, the network itself. This puts hooks on the network, so pass a private copy.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    names = {module: name for name, module in network.model.named_modules()}

    def see(module: nn.Module, arguments: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() in (2, 4):
            shapes.setdefault(names[module], tuple(output.shape[1:]))

    hooks = [module.register_forward_hook(see) for module in names]
    device = next((p.device for p in network.model.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad():
            network.model(torch.zeros(1, 3, network.input_size, network.input_size, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


class Unit(nn.Module):
    """A network with one output: a hidden unit's activation, summed if there are several units.

    Args:
        model: The network.
        layer: The name of the module.
        unit: The unit; see `Selector`.
    """

    def __init__(self, model: nn.Module, layer: str, unit: Selector) -> None:
        super().__init__()
        self.model, self.layer, self.unit = model, layer, unit

    def forward(self, inputs: Tensor) -> Tensor:
        """Return activations, (N, 1)."""
        index = (slice(None), *self.unit)
        chosen = activation(self.model, self.layer, inputs)[index]
        return chosen.reshape(len(chosen), -1).sum(dim=1, keepdim=True)


def activation(model: nn.Module, layer: str, inputs: Tensor) -> Tensor:
    """Return the output of a layer, that of its last call if it runs several times.

    The model must be a private copy: see `work.private_copy`.
    """
    seen: list[Tensor] = []
    # Clone it, as later operations may work in place.
    hook = model.get_submodule(layer).register_forward_hook(
        lambda module, arguments, output: seen.append(output.clone())
    )
    try:
        on_copies(model, inputs)
    finally:
        hook.remove()
    return seen[-1]


def selector(network: Network, inputs: Tensor, question: Question) -> Selector:
    """Return the unit that the question means, for these inputs (1, C, H, W).

    Raises:
        UsageError: The layer has no such channel.
    """
    with torch.no_grad():
        output = activation(network.model, question.layer, inputs)[0]
    if question.channel >= len(output):
        raise UsageError(
            f"{question.layer} has no channel {question.channel}: its channels are 0 to "
            f"{len(output) - 1}"
        )
    if output.dim() == 1:
        return (question.channel,)
    if question.everywhere:
        return (question.channel, slice(None), slice(None))
    row, column = divmod(int(output[question.channel].argmax()), output.shape[2])
    return question.channel, row, column


def layer_attribution(
    network: Network, inputs: Tensor, target: int, question: Question, shape: tuple[int, ...]
) -> Tensor:
    """Return the attribution of a class to a hidden layer of this shape, with a leading 1.

    Raises:
        UsageError: The method has no version for layers here, or the layer has no map.
    """
    layer = network.model.get_submodule(question.layer)
    if len(shape) != 3:
        raise UsageError(
            f"{question.layer} gives {shape[0]} numbers, not a picture, so there is no map to "
            "draw: choose a layer of channels, or one of its neurons"
        )
    if question.method == "pullback":
        attribute: Callable[..., Any] = LayerExcitationPullback(
            network.model,
            layer,
            question.temperature,
            pool_temperature=question.pool_temperature,
            rules=question.softness.rules,
        ).attribute
        return torch.as_tensor(attribute(inputs, target))
    if question.method == "saliency":
        plain = LayerGradientXActivation(network.model, layer, multiply_by_inputs=False)
        return torch.as_tensor(plain.attribute(inputs, target)).detach()
    if question.method == "ig":
        integrated = LayerIntegratedGradients(network.model, layer).attribute(
            inputs,
            target=target,
            n_steps=INTEGRATION_STEPS,
            internal_batch_size=max(1, at_once(network)),
        )
        return torch.as_tensor(integrated).detach()
    raise UsageError(
        f"{METHODS[question.method].title} explains classes and neurons at the input, not at a "
        "hidden layer: choose another method"
    )
