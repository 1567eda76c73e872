"""The attribution methods that are compared, each by a short name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from captum import attr
from torch import Tensor, nn

from benchmarks.compare.subjects import Subject
from captum_pullback import ExcitationPullback, soften
from captum_pullback.study import methods
from captum_pullback.study.methods import at_once, integrated, noise_deviation, smooth
from captum_pullback.study.traced import with_own_relus
from captum_pullback.zoo.network import pixel_bounds

#: From inputs (N, C, H, W) and a class, or one for each, to attributions of the inputs' shape.
Attribute = Callable[[Tensor, Any], Tensor]

# Soft gates make a smooth integrand: on the reference network 10 steps are within 0.5 % of 200,
# where 50 steps of the plain integral are within 2 %.
SOFT_STEPS = 10
SAMPLES = 10  # of the methods that average over noise
WINDOWS = 8  # Occlusion: steps along a side; the window is two steps wide

TIMES = "\N{MULTIPLICATION SIGN}"

#: Names that begin so are pullbacks at the temperature that follows: the sweep.
AT = "pullback@"


@dataclass(frozen=True)
class Method:
    """A method, and what the metrics have to know of it.

    Attributes:
        title: For people.
        make: From a subject to the function that attributes.
        multiplies_by_inputs: Whether attributions are contributions, to which perturbations
            relative to the inputs belong, or derivatives, to which absolute ones do.
        draws: Whether it draws random numbers.
        baseline: Of the inputs, ``"zero"`` (the mean colour) or ``"black"``.
        complete: Whether attributions should sum to the score's rise above the baseline's.
        knows_network: False for the controls.
    """

    title: str
    make: Callable[[Subject], Attribute]
    multiplies_by_inputs: bool = False
    draws: bool = False
    baseline: str = "zero"
    complete: bool = False
    knows_network: bool = True


def black(subject: Subject) -> Tensor:
    """The input (C, 1, 1) that is black."""
    return pixel_bounds(subject.network)[0].view(-1, 1, 1)


def baseline(subject: Subject, method: Method, inputs: Tensor) -> Tensor:
    """A method's baseline for these inputs, of their shape."""
    if method.baseline == "zero":
        return torch.zeros_like(inputs)
    return black(subject).to(inputs).expand_as(inputs).contiguous()


def attribution(subject: Subject, method: Method) -> Attribute:
    """What attributes by this method, for any metric: quiet, detached and contiguous."""
    with _quiet():
        attribute = method.make(subject)

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


def _known(name: str, **options: Any) -> Callable[[Subject], Attribute]:
    """One of `study.methods`, at these of its settings."""
    chosen = methods.METHODS[name]

    def make(subject: Subject) -> Attribute:
        attribute = chosen.make(subject.network, methods.Settings(**options))
        return lambda inputs, target: attribute(inputs, target=target)

    return make


def _shared(name: str, complete: bool = False, **options: Any) -> Method:
    """The row of one of `study.methods`, at these of its settings."""
    chosen = methods.METHODS[name]
    return Method(
        chosen.title,
        _known(name, **options),
        chosen.multiplies_by_inputs,
        chosen.draws,
        complete=complete,
    )


def _pullback(subject: Subject, times: bool = False) -> ExcitationPullback:
    return ExcitationPullback(subject.model, subject.temperature, multiply_by_inputs=times)


def _plainly(explainer: Any, **options: Any) -> Attribute:
    return lambda inputs, target: explainer.attribute(inputs, target=target, **options)


def _from_black(subject: Subject) -> Attribute:
    darkest = black(subject)
    return integrated(subject.network, baseline=lambda inputs: darkest.to(inputs).expand_as(inputs))


def _integrated_pullback(subject: Subject) -> Attribute:
    attribute_softly = integrated(subject.network, SOFT_STEPS)

    def attribute(inputs: Tensor, target: Any) -> Tensor:
        with soften(subject.model, subject.temperature):
            return attribute_softly(inputs, target)  # type: ignore[no-any-return]

    return attribute


def _gradient_shap(subject: Subject) -> Attribute:
    shap = attr.GradientShap(subject.model)

    def attribute(inputs: Tensor, target: Any) -> Tensor:
        return shap.attribute(  # type: ignore[no-any-return]
            inputs,
            torch.zeros_like(inputs[:1]),
            n_samples=SAMPLES,
            stdevs=noise_deviation(subject.network),
            target=target,
        )

    return attribute


def _deep_lift(subject: Subject) -> Attribute:
    lift = attr.DeepLift(with_own_relus(subject.model))
    return lambda inputs, target: lift.attribute(inputs, torch.zeros_like(inputs), target=target)


def _with_relus(make: Callable[[Subject], Attribute]) -> Callable[[Subject], Attribute]:
    """For methods of Captum that hook `nn.ReLU` and pass over functions without a word."""

    def checked(subject: Subject) -> Attribute:
        if not any(isinstance(module, nn.ReLU) for module in subject.model.modules()):
            raise ValueError("it needs nn.ReLU modules, and this network has none")
        return make(subject)

    return checked


def _guided_grad_cam(subject: Subject) -> Attribute:
    layer = subject.model.get_submodule(subject.layer)
    return _plainly(attr.GuidedGradCam(subject.model, layer))


def _occlusion(subject: Subject) -> Attribute:
    occlusion = attr.Occlusion(subject.model)

    def attribute(inputs: Tensor, target: Any) -> Tensor:
        steps = [max(1, side // WINDOWS) for side in inputs.shape[2:]]
        return occlusion.attribute(  # type: ignore[no-any-return]
            inputs,
            sliding_window_shapes=(inputs.shape[1], *(2 * step for step in steps)),
            strides=(inputs.shape[1], *steps),
            target=target,
            perturbations_per_eval=max(1, at_once(subject.network) // len(inputs) // 4),
        )

    return attribute


def _noise(subject: Subject) -> Attribute:
    return lambda inputs, target: torch.randn(inputs.shape).to(inputs)


def _edges(subject: Subject) -> Attribute:
    """The length of Sobel's gradient of the brightness, the same for each channel."""
    sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    kernels = torch.stack([sobel, sobel.T])[:, None]

    def attribute(inputs: Tensor, target: Any) -> Tensor:
        std = inputs.new_tensor(subject.network.std).view(1, -1, 1, 1)
        brightness = F.pad((inputs * std).mean(1, keepdim=True), (1, 1, 1, 1), "replicate")
        slopes = F.conv2d(brightness, kernels.to(inputs))
        length: Tensor = torch.linalg.vector_norm(slopes, dim=1, keepdim=True)
        return length.expand_as(inputs)

    return attribute


METHODS: dict[str, Method] = {
    "gradient": _shared("saliency"),
    "inputxgradient": _shared("inputxgradient"),
    "ig": _shared("ig", complete=True),
    "ig_black": Method(
        "Integrated Gradients from black",
        _from_black,
        multiplies_by_inputs=True,
        baseline="black",
        complete=True,
    ),
    "gradientshap": Method(
        "GradientShap", _gradient_shap, multiplies_by_inputs=True, draws=True, complete=True
    ),
    "deeplift": Method("DeepLift", _deep_lift, multiplies_by_inputs=True, complete=True),
    "guidedbackprop": _shared("guidedbackprop"),
    "deconvolution": Method(
        "Deconvolution", _with_relus(lambda s: _plainly(attr.Deconvolution(s.model)))
    ),
    "guidedgradcam": Method("Guided Grad-CAM", _with_relus(_guided_grad_cam)),
    "smoothgrad": _shared("smoothgrad", samples=SAMPLES),
    "occlusion": Method("Occlusion", _occlusion, multiplies_by_inputs=True),
    "pullback": Method("Pullback, T = 0.3", _known("pullback", temperature=0.3)),
    "pullback_fitted": Method("Pullback, fitted T", lambda s: _plainly(_pullback(s))),
    "pullback_times_input": Method(
        f"Input {TIMES} pullback, fitted T", lambda s: _plainly(_pullback(s, True)),
        multiplies_by_inputs=True,
    ),
    "smooth_pullback": Method(
        "SmoothPullback, fitted T", lambda s: smooth(s.network, _pullback(s), SAMPLES), draws=True
    ),
    "integrated_pullback": Method(
        "IntegratedPullback, fitted T",
        _integrated_pullback,
        multiplies_by_inputs=True,
        complete=True,
    ),
    "noise": Method("Random noise (control)", _noise, draws=True, knows_network=False),
    "edges": Method("Edge detector (control)", _edges, knows_network=False),
}  # fmt: skip


def find(name: str) -> Method:
    """A method by its name, one of `study.methods`, or a pullback of the sweep, ``pullback@0.7``.

    Raises:
        KeyError: There is none.
    """
    if name.startswith(AT):
        temperature = float(name.removeprefix(AT))
        title = f"Pullback, T = {temperature:g}"
        return Method(title, _known("pullback", temperature=temperature))
    return METHODS[name] if name in METHODS else _shared(name)
