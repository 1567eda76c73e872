"""The attribution methods that are compared, each by a short name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from captum import attr
from torch import Tensor, nn

from captum_pullback import ExcitationPullback
from captum_pullback.study import methods
from captum_pullback.study.methods import smooth
from captum_pullback.study.traced import with_own_relus
from captum_pullback.zoo.networks import Network

#: From inputs (N, C, H, W) and a class, or one for each, to attributions of the inputs' shape.
Attribute = Callable[[Tensor, Any], Tensor]

PASSES = 50  # gradients of Integrated Gradients and of SmoothGrad
SAMPLES = 10  # of the smoothed pullback, which needs fewer
TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Method:
    """A method, and what the metrics have to know of it.

    Attributes:
        title: For people.
        make: From a network to the function that attributes; a ValueError says why it cannot.
        multiplies_by_inputs: Whether attributions are contributions, to which perturbations
            relative to the inputs belong, or derivatives, to which absolute ones do.
        draws: Whether it draws random numbers.
        kind: This package's, somebody else's, or a control that knows nothing of the network.
    """

    title: str
    make: Callable[[Network], Attribute]
    multiplies_by_inputs: bool = False
    draws: bool = False
    kind: Literal["pullback", "rival", "control"] = "rival"

    @property
    def averages(self) -> bool:
        """Whether it is a mean over noise, and costs as much as all others together."""
        return self.draws and self.kind != "control"


def attribution(network: Network, method: Method) -> Attribute:
    """What attributes by this method, for any metric: quiet, detached and contiguous."""
    with _quiet():
        attribute = method.make(network)

    def attributed(inputs: Any, target: Any) -> Tensor:
        if isinstance(inputs, tuple):  # Captum's sensitivity_max wraps a single tensor
            (inputs,) = inputs
        with _quiet(), torch.enable_grad():
            # Whatever a method does to the tensor's flags or gradients, it does to ours.
            return attribute(inputs.detach().clone(), target).detach().contiguous()

    return attributed


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what Captum's own methods warn of on every ordinary call."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*required_grads has been set automatically")
        warnings.filterwarnings("ignore", message="Setting .* hooks")
        yield


def _shared(name: str, **options: Any) -> Method:
    """The row of one of `study.methods`, at these of its settings."""
    chosen = methods.METHODS[name]

    def make(network: Network) -> Attribute:
        attribute = chosen.make(network, methods.Settings(**options))
        return lambda inputs, target: attribute(inputs, target=target)

    return Method(chosen.title, make, chosen.multiplies_by_inputs, chosen.draws)


def _pullback(*temperature: float, times: bool = False) -> Callable[[Network], Attribute]:
    """A pullback at a temperature, or at the default one: as a user calls it who says nothing."""

    def make(network: Network) -> Attribute:
        explainer = ExcitationPullback(network.model, *temperature, multiply_by_inputs=times)
        return lambda inputs, target: explainer.attribute(inputs, target=target)

    return make


def _smooth_pullback(network: Network) -> Attribute:
    return smooth(network, ExcitationPullback(network.model), SAMPLES)


def _deep_lift(network: Network) -> Attribute:
    traced = with_own_relus(network.model)
    if not any(isinstance(module, nn.ReLU) for module in traced.modules()):
        # It would pass over other gates, and give input times gradient without a word.
        raise ValueError("DeepLift needs ReLUs; this network has none")
    lift = attr.DeepLift(traced)
    return lambda inputs, target: lift.attribute(inputs, torch.zeros_like(inputs), target=target)


def _noise(network: Network) -> Attribute:
    return lambda inputs, target: torch.randn(inputs.shape).to(inputs)


def _edges(network: Network) -> Attribute:
    """The length of Sobel's gradient of the brightness, the same for each channel."""
    sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    kernels = torch.stack([sobel, sobel.T])[:, None]

    def attribute(inputs: Tensor, target: Any) -> Tensor:
        std = inputs.new_tensor(network.std).view(1, -1, 1, 1)
        brightness = F.pad((inputs * std).mean(1, keepdim=True), (1, 1, 1, 1), "replicate")
        slopes = F.conv2d(brightness, kernels.to(inputs))
        length: Tensor = torch.linalg.vector_norm(slopes, dim=1, keepdim=True)
        return length.expand_as(inputs)

    return attribute


METHODS: dict[str, Method] = {
    "pullback": Method("Pullback", _pullback(), kind="pullback"),
    "pullback_published": Method("Pullback, T = 0.3", _pullback(0.3), kind="pullback"),
    "pullback_times_input": Method(
        f"Input {TIMES} pullback", _pullback(times=True), multiplies_by_inputs=True, kind="pullback"
    ),
    "smooth_pullback": Method("Smooth pullback", _smooth_pullback, draws=True, kind="pullback"),
    "ig": _shared("ig", steps=PASSES),
    "gradient": _shared("saliency"),
    "inputxgradient": _shared("inputxgradient"),
    "smoothgrad": _shared("smoothgrad", samples=PASSES),
    "deeplift": Method("DeepLift", _deep_lift, multiplies_by_inputs=True),
    "guidedbackprop": _shared("guidedbackprop"),
    "gradcam": _shared("gradcam"),
    "guidedgradcam": _shared("guidedgradcam"),
    "epsilonplusflat": _shared("epsilonplusflat"),
    "attn_lrp": _shared("attn_lrp"),
    "noise": Method("Random noise (control)", _noise, draws=True, kind="control"),
    "edges": Method("Edge detector (control)", _edges, kind="control"),
}


def find(name: str) -> Method:
    """A method by its name here, or one of `study.methods`.

    Raises:
        KeyError: There is none.
    """
    return METHODS[name] if name in METHODS else _shared(name)
