"""The lines of Python that reproduce what is on the page, bit for bit."""

from __future__ import annotations

from captum_pullback.app.climbing import Ascended, climb_ways
from captum_pullback.app.question import Loaded, Photo, Selector
from captum_pullback.app.spelling import softness_code
from captum_pullback.app.work import Explanation
from captum_pullback.study.methods import (
    INTEGRATION_STEPS,
    NOISE_SAMPLES,
    at_once,
    noise_deviation,
)
from captum_pullback.zoo.networks import Network

__all__ = ["ascent_code", "explanation_code"]

_PULLBACKS = {
    "class": "ExcitationPullback",
    "neuron": "NeuronExcitationPullback",
    "layer": "LayerExcitationPullback",
}
_GRADIENTS = {
    "class": "Saliency",
    "neuron": "NeuronGradient",
    "layer": "LayerGradientXActivation",
}
_INTEGRATED = {
    "class": "IntegratedGradients",
    "neuron": "NeuronIntegratedGradients",
    "layer": "LayerIntegratedGradients",
}


def explanation_code(loaded: Loaded, answer: Explanation) -> str:
    """Return code that ends in ``attributions``, with a row for each target.

    The code for a pasted photograph reads the network's input from the app's ``.npz``.
    """
    question, network = answer.question, loaded.network
    what, method = question.what, question.method
    layer = "" if what == "class" else ", layer"
    imports: dict[str, set[str]] = {"captum.attr": set(), "captum_pullback": {"zoo"}}
    seeded, options = False, ""
    if "pullback" in method:
        soft, needed = softness_code(question.softness)
        imports["captum_pullback"] |= {_PULLBACKS[what], *needed}
        maker = f"{_PULLBACKS[what]}(network.model{layer}, {soft})"
        if method == "smoothpullback":
            imports["captum.attr"].add("NoiseTunnel")
            seeded = True
            maker = f"NoiseTunnel({maker})"
            options = (
                f', nt_type="smoothgrad", nt_samples={NOISE_SAMPLES}, '
                f"nt_samples_batch_size={min(NOISE_SAMPLES, at_once(network))}, "
                f"stdevs={noise_deviation(network)!r}"
            )
    elif method == "saliency":
        imports["captum.attr"].add(_GRADIENTS[what])
        multiply = ", multiply_by_inputs=False" if what == "layer" else ""
        maker = f"{_GRADIENTS[what]}(network.model{layer}{multiply})"
        options = ", abs=False" if what == "class" else ""
    else:
        imports["captum.attr"].add(_INTEGRATED[what])
        maker = f"{_INTEGRATED[what]}(network.model{layer})"
        options = f", n_steps={INTEGRATION_STEPS}, internal_batch_size={max(1, at_once(network))}"
    lines = _opening(loaded, answer.seen.photo, imports, "explanation.npz")
    if method == "saliency":  # otherwise Captum warns that it sets requires_grad itself
        lines[-1] += ".requires_grad_()"
    if what != "class":
        lines.append(f"layer = network.model.get_submodule({question.layer!r})")
    lines.append(f"method = {maker}")
    if what == "neuron":
        call = f"method.attribute(inputs, neuron_selector={_selector(answer.unit)}{options})"
        lines += ["torch.manual_seed(0)"] * seeded
        lines.append(f"attributions = {call}")
    else:
        names = _names(network, question.targets)
        lines += [f"targets = {list(question.targets)}  # {names}", "attributions = []"]
        lines.append("for target in targets:")
        lines += ["    torch.manual_seed(0)"] * seeded
        lines.append(f"    attributions.append(method.attribute(inputs, target=target{options}))")
        lines.append("attributions = torch.cat(attributions)")
    return "\n".join([*lines, ""])


def ascent_code(loaded: Loaded, result: Ascended) -> str:
    """Return code that ends in ``perturbed``, and ``perturbed_plainly`` if both are compared."""
    question, climb = result.question, result.climb
    ways = {
        name: softness_code(way)
        for name, way in zip(
            ("perturbed", "perturbed_plainly"), climb_ways(question, climb).values(), strict=False
        )
    }
    needed = {name for _, names in ways.values() for name in names}
    imports = {"captum_pullback": {"PullbackAscent", "zoo"} | needed}
    lines = _opening(loaded, result.seen.photo, imports, "ascent.npz")
    model = "network.model"
    if question.what == "neuron":
        lines[0:0] = ["from captum_pullback.app.hidden import Unit"]
        unit = _selector(result.unit)
        lines.append(f"model = Unit(network.model, {question.layer!r}, {unit})")
        lines.append("targets = [0]")
        model = "model"
    else:
        names = _names(loaded.network, question.targets)
        lines.append(f"targets = {list(question.targets)}  # {names}")
    bounds = ""
    if climb.bounded:
        lines.append("mean, std = torch.tensor(network.mean), torch.tensor(network.std)")
        lines.append("black, white = (0 - mean) / std, (1 - mean) / std")
        bounds = ", bounds=(black, white)"
    for name, (soft, _) in ways.items():
        lines += [
            "ascent = PullbackAscent(",
            f"    {model}, {soft}, steps={climb.steps},",
            f"    step_size={climb.step_size!r}, radius={climb.radius!r}, relative=True{bounds},",
            ")",
            f"{name} = torch.cat([ascent.perturb(inputs, target) for target in targets])",
        ]
    return "\n".join([*lines, ""])


def _opening(loaded: Loaded, photo: Photo, imports: dict[str, set[str]], arrays: str) -> list[str]:
    """Return the imports, the network and its input."""
    lines = ["import numpy as np"] if photo.pasted else []
    lines.append("import torch")
    lines += [f"from {m} import {', '.join(sorted(n))}" for m, n in imports.items() if n]
    device = f".to({loaded.device!r})" if loaded.device != "cpu" else ""
    if photo.pasted:
        inputs = f"torch.from_numpy(np.load({arrays!r})['inputs'])[None]{device}"
    else:
        reader = "sample_photo" if photo.path is None else "read_photo"
        lines.append(f"from captum_pullback.zoo.photos import {reader}")
        inputs = f"network.preprocess({reader}({photo.name!r}))[None]{device}"
    asked = [repr(loaded.name)]
    asked += [f"weights={loaded.weights!r}"] if loaded.weights is not None else []
    asked += [f"device={loaded.device!r}"] if loaded.device != "cpu" else []
    lines += ["", "torch.manual_seed(0)"] if loaded.weights == "random" else [""]
    return [*lines, f"network = zoo.load({', '.join(asked)})", f"inputs = {inputs}"]


def _selector(unit: Selector) -> str:
    parts = ["slice(None)" if isinstance(part, slice) else repr(part) for part in unit]
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"


def _names(network: Network, targets: tuple[int, ...]) -> str:
    """Return the names for a comment, without line breaks."""
    named = [network.classes[t] if t < len(network.classes) else f"class {t}" for t in targets]
    return ", ".join(" ".join(name.split()) for name in named)
