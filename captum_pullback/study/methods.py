"""The attribution methods that the command line knows, each by a short name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from captum import attr
from torch import Tensor, nn

from captum_pullback.attribution import ExcitationPullback
from captum_pullback.engine.models import on_copies
from captum_pullback.engine.record import SofteningRecord
from captum_pullback.engine.softening import soften
from captum_pullback.zoo.networks import Network

#: Called as ``attribute(inputs, target=...)``, inputs (N, C, H, W) or a tuple of just that.
Attribute: TypeAlias = Callable[..., Any]

INTEGRATION_STEPS = 50
NOISE_SAMPLES = 25


@dataclass(frozen=True)
class Settings:
    """What all methods of a run share.

    Attributes:
        temperature: of the excitation pullback, as `ExcitationPullback` takes it.
        pool_temperature: of its max pooling; None follows ``temperature``.
        seed: of the noise of SmoothGrad and of the scores.
        scores: whether to compute infidelity and max-sensitivity.
    """

    temperature: float = 0.3
    pool_temperature: float | None = None
    seed: int = 0
    scores: bool = True


@dataclass(frozen=True)
class Method:
    """A method by its title, how to make its ``attribute``, and the form of its attributions.

    Attributes:
        title: for people.
        make: given the network and the settings, the function that attributes.
        multiplies_by_inputs: whether attributions are contributions, to which perturbations
            relative to the inputs belong, or derivatives, to which absolute ones do.
    """

    title: str
    make: Callable[[Network, Settings], Attribute]
    multiplies_by_inputs: bool = False


def title(method: str, settings: Settings) -> str:
    """A method's title, with the temperature where it has one."""
    name = METHODS[method].title
    return f"{name}, T = {settings.temperature:.3g}" if "pullback" in method else name


def at_once(network: Network) -> int:
    """How many inputs go through a network at once: as many pixels as 16 of 224 x 224."""
    return max(1, 16 * 224**2 // network.input_size**2)


def noise_deviation(network: Network) -> float:
    """That of the noise of SmoothGrad and its like: 0.15 of the pixels' range."""
    return 0.15 * len(network.std) / sum(network.std)


def pixel_bounds(network: Network) -> tuple[Tensor, Tensor]:
    """Black and white, a number per channel, in the network's input space."""
    mean, std = torch.tensor(network.mean), torch.tensor(network.std)
    return (0 - mean) / std, (1 - mean) / std


def coverage(network: Network, inputs: Tensor, settings: Settings) -> SofteningRecord:
    """What a pullback softens at these inputs (N, C, H, W), and what it leaves hard."""
    with soften(
        network.model, settings.temperature, pool_temperature=settings.pool_temperature
    ) as record:
        on_copies(network.model, inputs.detach().requires_grad_())
    return record


def _pullback(network: Network, settings: Settings) -> ExcitationPullback:
    return ExcitationPullback(
        network.model, settings.temperature, pool_temperature=settings.pool_temperature
    )


def _saliency(network: Network, settings: Settings) -> Attribute:
    saliency = attr.Saliency(network.model)
    return lambda inputs, target: saliency.attribute(inputs, target=target, abs=False)


def _integrated(network: Network, settings: Settings) -> Attribute:
    integrated = attr.IntegratedGradients(network.model)

    def attribute(inputs: Any, target: int) -> Any:
        batch = len(inputs[0]) if isinstance(inputs, tuple) else len(inputs)
        return integrated.attribute(
            inputs,
            target=target,
            n_steps=INTEGRATION_STEPS,
            internal_batch_size=max(batch, at_once(network)),
        )

    return attribute


def _guided(network: Network, settings: Settings) -> Attribute:
    if not any(isinstance(module, nn.ReLU) for module in network.model.modules()):
        raise ValueError("guided backprop needs nn.ReLU modules; this network has none")
    return attr.GuidedBackprop(network.model).attribute  # type: ignore[no-any-return]


def _smooth(network: Network, explainer: Any, **options: Any) -> Attribute:
    tunnel = attr.NoiseTunnel(explainer)
    deviation = noise_deviation(network)

    def attribute(inputs: Any, target: int) -> Any:
        return tunnel.attribute(
            inputs,
            nt_type="smoothgrad",
            nt_samples=NOISE_SAMPLES,
            nt_samples_batch_size=min(NOISE_SAMPLES, at_once(network)),
            stdevs=deviation,
            target=target,
            **options,
        )

    return attribute


METHODS = {
    "pullback": Method("Excitation pullback", lambda n, s: _pullback(n, s).attribute),
    "saliency": Method("Gradient", _saliency),
    "ig": Method("Integrated Gradients", _integrated, multiplies_by_inputs=True),
    "inputxgradient": Method(
        "Input \N{MULTIPLICATION SIGN} gradient",
        lambda n, s: attr.InputXGradient(n.model).attribute,
        multiplies_by_inputs=True,
    ),
    "guidedbackprop": Method("Guided backprop", _guided),
    "smoothgrad": Method("SmoothGrad", lambda n, s: _smooth(n, attr.Saliency(n.model), abs=False)),
    "smoothpullback": Method("Smooth pullback", lambda n, s: _smooth(n, _pullback(n, s))),
}
