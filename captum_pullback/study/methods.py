"""The attribution methods of the commands, the app and the benchmarks, by short names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from captum import attr
from torch import Tensor, nn

from captum_pullback.ascent import PullbackAscent
from captum_pullback.attribution import ExcitationPullback
from captum_pullback.engine.models import on_copies
from captum_pullback.engine.record import SofteningRecord
from captum_pullback.engine.softening import soften
from captum_pullback.engine.softness import Softness
from captum_pullback.study import rivals
from captum_pullback.study.attn_lrp import attn_lrp
from captum_pullback.study.softness import temperature_words
from captum_pullback.zoo.network import Network, pixel_bounds

#: Called as ``attribute(inputs, target=...)``, with inputs (N, C, H, W) or a tuple of one tensor.
Attribute: TypeAlias = Callable[..., Any]

#: How attributions are scored: within `scores.BUDGET`, over all samples, or not at all.
Scoring: TypeAlias = Literal["quick", "full", "none"]

INTEGRATION_STEPS = 50  # of Integrated Gradients
NOISE_SAMPLES = 25  # of the methods that average over noise


@dataclass(frozen=True)
class Settings(Softness):
    """The settings that all methods of a run share.

    Attributes:
        seed: For the noise of SmoothGrad and of the scores.
        scores: How to compute infidelity and max-sensitivity.
        steps: The steps of Integrated Gradients.
        samples: The samples of the methods that average over noise.
    """

    seed: int = 0
    scores: Scoring = "quick"
    steps: int = INTEGRATION_STEPS
    samples: int = NOISE_SAMPLES


@dataclass(frozen=True)
class Method:
    """A method: its title, how to make its ``attribute``, and the form of its attributions.

    Attributes:
        title: Its name for people.
        make: Takes the network and the settings, and returns the function that attributes.
        multiplies_by_inputs: Whether attributions are contributions, which go with perturbations
            relative to the inputs, or derivatives, which go with absolute ones.
        draws: Whether it draws random numbers.
    """

    title: str
    make: Callable[[Network, Settings], Attribute]
    multiplies_by_inputs: bool = False
    draws: bool = False


def title(method: str, settings: Settings) -> str:
    """A method's title, with its temperature if it has one."""
    name = METHODS[method].title
    return (
        f"{name}, T = {temperature_words(settings.temperature)}" if "pullback" in method else name
    )


def at_once(network: Network) -> int:
    """How many inputs a network is given at once: as many pixels as 16 of 224 x 224."""
    return max(1, 16 * 224**2 // network.input_size**2)


def noise_deviation(network: Network) -> float:
    """The standard deviation of the noise of SmoothGrad and the like: 0.15 of the pixels' range."""
    return 0.15 * len(network.std) / sum(network.std)


def coverage(network: Network, inputs: Tensor, settings: Softness) -> SofteningRecord:
    """The record of what a pullback softens and leaves hard at these inputs (N, C, H, W)."""
    with soften(
        network.model,
        settings.temperature,
        pool_temperature=settings.pool_temperature,
        rules=settings.rules,
    ) as record:
        leaf = inputs.detach().requires_grad_()
        # A gate counts when its backward ran on the way to the inputs.
        torch.autograd.grad(on_copies(network.model, leaf).sum(), leaf, allow_unused=True)
    return record


def _pullback(network: Network, settings: Settings) -> ExcitationPullback:
    return ExcitationPullback(
        network.model,
        settings.temperature,
        pool_temperature=settings.pool_temperature,
        rules=settings.rules,
    )


def _saliency(network: Network, settings: Settings) -> Attribute:
    saliency = attr.Saliency(network.model)
    return lambda inputs, target: saliency.attribute(inputs, target=target, abs=False)


def integrated(
    network: Network,
    steps: int = INTEGRATION_STEPS,
    baseline: Callable[[Tensor], Tensor] | None = None,
) -> Attribute:
    """Integrated Gradients, with as many inputs at once as the network's input size suggests.

    Args:
        network: The network whose score is explained.
        steps: The steps of the integral.
        baseline: Takes inputs and returns where the path begins; None for zeros.
    """
    explainer = attr.IntegratedGradients(network.model)

    def attribute(inputs: Any, target: Any) -> Any:
        return explainer.attribute(
            inputs,
            None if baseline is None else baseline(inputs),
            target=target,
            n_steps=steps,
            internal_batch_size=max(_batch(inputs), at_once(network)),
        )

    return attribute


def smooth(network: Network, explainer: Any, samples: int, **options: Any) -> Attribute:
    """A method's mean over noise on the inputs (SmoothGrad), in batches of `at_once`."""
    tunnel = attr.NoiseTunnel(explainer)
    deviation = noise_deviation(network)

    def attribute(inputs: Any, target: Any) -> Any:
        return tunnel.attribute(
            inputs,
            nt_type="smoothgrad",
            nt_samples=samples,
            nt_samples_batch_size=max(1, min(samples, at_once(network) // _batch(inputs))),
            stdevs=deviation,
            target=target,
            **options,
        )

    return attribute


def _batch(inputs: Any) -> int:
    """The number of examples in inputs, which are a tensor or a tuple of one tensor."""
    return len(inputs[0]) if isinstance(inputs, tuple) else len(inputs)


def _guided(network: Network, settings: Settings) -> Attribute:
    if not any(isinstance(module, nn.ReLU) for module in network.model.modules()):
        raise ValueError("guided backprop needs nn.ReLU modules; this network has none")
    return attr.GuidedBackprop(network.model).attribute  # type: ignore[no-any-return]


def _ascent(network: Network, settings: Settings) -> Attribute:
    ascent = PullbackAscent(
        network.model,
        settings.temperature,
        pool_temperature=settings.pool_temperature,
        rules=settings.rules,
        relative=True,
    )
    return ascent.attribute  # type: ignore[no-any-return]


METHODS = {
    "pullback": Method("Excitation pullback", lambda n, s: _pullback(n, s).attribute),
    "saliency": Method("Gradient", _saliency),
    "ig": Method(
        "Integrated Gradients", lambda n, s: integrated(n, s.steps), multiplies_by_inputs=True
    ),
    "inputxgradient": Method(
        "Input \N{MULTIPLICATION SIGN} gradient",
        lambda n, s: attr.InputXGradient(n.model).attribute,
        multiplies_by_inputs=True,
    ),
    "guidedbackprop": Method("Guided backprop", _guided),
    "smoothgrad": Method(
        "SmoothGrad",
        lambda n, s: smooth(n, attr.Saliency(n.model), s.samples, abs=False),
        draws=True,
    ),
    "smoothpullback": Method(
        "Smooth pullback", lambda n, s: smooth(n, _pullback(n, s), s.samples), draws=True
    ),
    "ascent": Method("Ascent, 5 steps", _ascent),
    "gradcam": Method("Grad-CAM", lambda n, s: rivals.grad_cam(n.model), multiplies_by_inputs=True),
    "guidedgradcam": Method("Guided Grad-CAM", lambda n, s: rivals.guided_grad_cam(n.model)),
    "fusiongrad": Method(
        "FusionGrad",
        lambda n, s: rivals.fusiongrad(n.model, noise_deviation(n), at_once(n)),
        draws=True,
    ),
    "lrp": Method("Captum's LRP", lambda n, s: rivals.lrp(n.model), multiplies_by_inputs=True),
    "epsilonplusflat": Method(
        "LRP, EpsilonPlusFlat",
        lambda n, s: rivals.epsilon_plus_flat(n.model),
        multiplies_by_inputs=True,
    ),
    "epsilongammabox": Method(
        "LRP, EpsilonGammaBox",
        lambda n, s: rivals.epsilon_gamma_box(n.model, *pixel_bounds(n)),
        multiplies_by_inputs=True,
    ),
    "attn_lrp": Method("AttnLRP", lambda n, s: attn_lrp(n.model), multiplies_by_inputs=True),
}
