"""The pullbacks inside Captum's own tools, and Captum's own tests with them in its classes' place.

The one list of private Captum imports, of package and tests (versions: captum 0.9.0):

- `captum.log.log_usage`, in captum_pullback.attribution (not underscored, but undocumented)
- `captum.testing.attr.helpers.test_config.config`, here
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import (
    DataLoaderAttribution,
    FeatureAblation,
    GuidedBackprop,
    GuidedGradCam,
    InputXGradient,
    IntegratedGradients,
    LayerGradCam,
    NeuronGuidedBackprop,
    NoiseTunnel,
    Saliency,
    visualization,
)
from captum.metrics import infidelity, infidelity_perturb_func_decorator, sensitivity_max
from captum.testing.attr.helpers.test_config import config
from reference import gradient, max_pool2d, relu
from snapshot import hooks
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import captum_pullback
from captum_pullback import ExcitationPullback, NeuronExcitationPullback, soften

PRIVATE = {"captum.log"}
T = 0.3
IN_PLACE_OF = {GuidedBackprop: ExcitationPullback, NeuronGuidedBackprop: NeuronExcitationPullback}


@pytest.fixture(autouse=True)
def _no_windows() -> None:
    matplotlib.use("agg")


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 5)
    )


@pytest.fixture
def x() -> Tensor:
    return torch.rand(3, 3, 8, 8)


def test_the_package_imports_no_other_private_module_of_captum() -> None:
    sources = Path(captum_pullback.__file__).parent.rglob("*.py")
    text = "\n".join(source.read_text() for source in sources)
    found = set(re.findall(r"^\s*from (captum\.[\w.]+) import", text, re.M))
    assert found - {"captum.attr", "captum.metrics", "captum.robust"} <= PRIVATE
    assert not re.search(r"captum(\.\w+)*\._\w+", text)


def test_noise_tunnel_averages_pullbacks(model: nn.Module, x: Tensor) -> None:
    pullback = ExcitationPullback(model, T)
    still = NoiseTunnel(pullback).attribute(x, nt_samples=3, stdevs=0.0, target=1)
    torch.testing.assert_close(still, pullback.attribute(x, 1))
    torch.manual_seed(2)
    found = NoiseTunnel(pullback).attribute(x, nt_samples=4, stdevs=0.2, target=1)
    torch.manual_seed(2)
    noisy = torch.normal(x.repeat_interleave(4, 0), 0.2)
    each = pullback.attribute(noisy, 1).view(3, 4, *x.shape[1:])
    torch.testing.assert_close(found, each.mean(1))


@pytest.mark.parametrize("times", [False, True])
def test_infidelity_of_a_linear_region_is_zero(x: Tensor, times: bool) -> None:
    linear = nn.Linear(192, 5)
    flat = x.flatten(1)
    pullback = ExcitationPullback(lambda x: F.relu(linear(x) + 99), T, multiply_by_inputs=times)
    perturb = infidelity_perturb_func_decorator(times)(lambda x: x * 0.9)
    forward = lambda x: F.relu(linear(x) + 99)  # noqa: E731
    score = infidelity(forward, perturb, flat, pullback.attribute(flat, 2), target=2)
    assert score.max() < 1e-6


@pytest.mark.parametrize("last", [False, True])
def test_sensitivity_max_is_the_largest_relative_change(
    model: nn.Module, x: Tensor, last: bool
) -> None:
    pullback = ExcitationPullback(model, T)
    given = x.contiguous(memory_format=torch.channels_last) if last else x
    brighter = lambda x: (x[0] + 0.1 if isinstance(x, tuple) else x + 0.1,)  # noqa: E731
    found = sensitivity_max(pullback.attribute, given, perturb_func=brighter, target=1)
    before, after = pullback.attribute(x, 1), pullback.attribute(x + 0.1, 1)
    change = (after - before).flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)
    torch.testing.assert_close(found, change, rtol=1e-4, atol=1e-6)


def test_visualization_draws_pullbacks(model: nn.Module, x: Tensor) -> None:
    picture = x[0].permute(1, 2, 0).numpy()
    heat = ExcitationPullback(model, T).attribute(x, 0)[0].permute(1, 2, 0).numpy()
    one, axis = visualization.visualize_image_attr(heat, picture, "heat_map", use_pyplot=False)
    many, _ = visualization.visualize_image_attr_multiple(
        heat, picture, ["original_image", "blended_heat_map"], ["all", "absolute_value"],
        use_pyplot=False,
    )  # fmt: skip
    assert np.asarray(axis.images[0].get_array()).std() > 0
    assert len(many.axes) >= 2
    assert one is not many


@pytest.mark.parametrize("method", [Saliency, ExcitationPullback])
def test_dataloader_attribution_takes_no_gradient_method(model: nn.Module, method: Any) -> None:
    with pytest.raises(AssertionError, match=rf"does not support .*\.{method.__name__}"):
        DataLoaderAttribution(method(model))


def test_dataloader_attribution_inside_is_unmoved(model: nn.Module, x: Tensor) -> None:
    """Ablation takes no gradients; forward passes are exact, so its result is, too."""
    loader = DataLoader(TensorDataset(x), batch_size=2)
    method = DataLoaderAttribution(FeatureAblation(lambda x: model(x)[:, :1].sum(0)))
    mask = torch.arange(4).view(1, 1, 1, 4).repeat_interleave(2, 3).expand(1, 3, 8, 8)
    outside = method.attribute(loader, feature_mask=(mask,))
    with soften(model, T):
        inside = method.attribute(loader, feature_mask=(mask,))
    assert torch.equal(inside[0], outside[0])


# --- Captum's methods inside soften -------------------------------------------------------------


def soft_scores(model: nn.Module, z: Tensor, target: int, t: float = T) -> Tensor:
    """The sum of a class's scores from the convolution's output on, with soft derivatives."""
    pooled = max_pool2d(relu(z, t), t, 2, 2)
    return model[4](pooled.flatten(1))[:, target].sum()


def soft_gradient(model: nn.Module, x: Tensor, target: int) -> Tensor:
    leaf = x.detach().clone().requires_grad_()
    return gradient(soft_scores(model, model[0](leaf), target), leaf)


def test_saliency_and_input_x_gradient_inside(model: nn.Module, x: Tensor) -> None:
    expected = soft_gradient(model, x, 2)
    leaf = x.requires_grad_()
    with soften(model, T):
        saliency = Saliency(model).attribute(leaf, 2)
        times = InputXGradient(model).attribute(leaf, 2)
    torch.testing.assert_close(saliency, expected.abs())
    torch.testing.assert_close(times, x * expected)


def test_integrated_gradients_inside_averages_over_the_path(model: nn.Module, x: Tensor) -> None:
    with soften(model, T):
        found = IntegratedGradients(model).attribute(x, 0, 2, n_steps=4, method="riemann_middle")
    path = [soft_gradient(model, x * (k + 0.5) / 4, 2) for k in range(4)]
    torch.testing.assert_close(found, x * torch.stack(path).mean(0), rtol=1e-4, atol=1e-6)


def test_grad_cam_inside(model: nn.Module, x: Tensor) -> None:
    with soften(model, T):
        found = LayerGradCam(model, model[0]).attribute(x, 1)
    z = model[0](x).detach().requires_grad_()
    weight = gradient(soft_scores(model, z, 1), z).mean((2, 3), keepdim=True)
    torch.testing.assert_close(found, (weight * z).sum(1, keepdim=True).detach())


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
def test_guided_grad_cam_inside(model: nn.Module, x: Tensor) -> None:
    leaf = x.requires_grad_()
    with soften(model, T):
        found = GuidedGradCam(model, model[0]).attribute(leaf, 1)
        cam = LayerGradCam(model, model[0]).attribute(leaf, 1, relu_attributions=True)
    # Guided: what a gate passes on, here softly, counts only where it is positive.
    z = model[0](leaf).detach().requires_grad_()
    passed = gradient(soft_scores(model, z, 1), z).clamp(min=0)
    guided = gradient((model[0](leaf) * passed).sum(), leaf)
    torch.testing.assert_close(found, guided * cam)
    assert hooks(model) == []


# --- Captum's own configuration -----------------------------------------------------------------

CASES = [
    pytest.param(case, theirs, id=f"{case['name']}-{ours.__name__}")
    for case in config
    for theirs, ours in IN_PLACE_OF.items()
    if theirs in case["algorithms"]
]


def build(case: dict[str, Any], theirs: type) -> tuple[Any, nn.Module]:
    model = copy.deepcopy(case["model"])
    layer = [model.get_submodule(case["layer"])] if "layer" in case else []
    ours = IN_PLACE_OF[theirs](model, *layer)
    return (NoiseTunnel(ours) if case.get("noise_tunnel") else ours), model


def call(method: Any, case: dict[str, Any], **changed: Any) -> tuple[Tensor, ...]:
    torch.manual_seed(1234)
    result = method.attribute(**{**case["attribute_args"], **changed})
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize(("case", "theirs"), CASES)
def test_hooks_are_gone_afterwards(case: dict[str, Any], theirs: type) -> None:
    method, model = build(case, theirs)
    call(method, case)
    assert hooks(model) == []


@pytest.mark.parametrize(
    ("case", "theirs"), [c for c in CASES if "target" in c.values[0]["attribute_args"]]
)
def test_each_examples_target_gives_what_it_gives_alone(case: dict[str, Any], theirs: type) -> None:
    arguments = case["attribute_args"]
    inputs = arguments["inputs"]
    count = len(inputs[0] if isinstance(inputs, tuple) else inputs)
    target = arguments["target"]
    if not isinstance(target, (list, Tensor)) or len(target) != count:
        target = [int(target) if not isinstance(target, list) else target[0]] * count
    method, _ = build(case, theirs)
    together = call(method, case)
    for example in range(count):
        same = target[example]
        same = int(same) if isinstance(same, Tensor) else same
        alone = call(method, case, target=same)
        for ours, theirs_alone in zip(together, alone, strict=True):
            torch.testing.assert_close(ours[example], theirs_alone[example])
