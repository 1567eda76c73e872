"""Ascents as Captum's classes are used: targets, metrics, what is left alone, what is refused."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Attribution, NoiseTunnel, visualization
from captum.metrics import infidelity, infidelity_perturb_func_decorator, sensitivity_max
from captum.robust import AttackComparator, Perturbation
from climbs import convolutional, images, normal
from handmade import Handmade
from snapshot import hooks
from torch import Tensor, nn

from captum_pullback import PullbackAscent
from captum_pullback.engine.errors import SofteningError


@pytest.mark.parametrize(
    "target",
    [2, (2,), [2, 2, 2], torch.tensor(2), torch.tensor([2, 2, 2]), [(2,), (2,), (2,)], np.int64(2)],
    ids=repr,
)
def test_targets_are_captums(target: Any) -> None:
    model = convolutional()
    target = int(target) if isinstance(target, np.int64) else target
    expected = PullbackAscent(lambda x: model(x)[:, 2], 0.5, step_size=0.4).trace(images(), None)
    found = PullbackAscent(model, 0.5, step_size=0.4).trace(images(), target)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.inputs, other.inputs)
        torch.testing.assert_close(one.score, other.score)


def test_targets_of_outputs_with_more_dimensions() -> None:
    model = convolutional()
    grid = PullbackAscent(lambda x: torch.stack([model(x), -model(x)], dim=2), step_size=0.4)
    flat = PullbackAscent(lambda x: -model(x), step_size=0.4)
    for target, same in (((3, 1), 3), ([(3, 1), (0, 1), (4, 1)], [3, 0, 4])):
        found, expected = grid.trace(images(), target), flat.trace(images(), same)
        torch.testing.assert_close(found[-1].score, expected[-1].score)
        torch.testing.assert_close(found[-1].inputs, expected[-1].inputs)


def test_additional_arguments_and_names_of_modules_reach_the_network() -> None:
    model = convolutional()
    shifted = Handmade(lambda net, x, shift, times: net.model(x + shift) * times, model=model)
    shift, x = normal(3, 3, 8, 8, seed=9), images()
    temperature = {"model.1": 0.2, "": 0.9}
    found = PullbackAscent(shifted, temperature, step_size=0.4).trace(x, 1, (shift, 2.0))
    expected = PullbackAscent(model, {"1": 0.2, "": 0.9}, step_size=0.4).trace(x + shift, 1)
    torch.testing.assert_close(found[-1].inputs + shift, expected[-1].inputs)
    torch.testing.assert_close(found[-1].score, expected[-1].score * 2)
    torch.testing.assert_close(found[0].score, model(x + shift)[:, 1].detach() * 2)


def test_it_is_an_attribution_and_a_perturbation() -> None:
    ascent = PullbackAscent(convolutional())
    assert isinstance(ascent, Attribution)
    assert isinstance(ascent, Perturbation)
    assert not ascent.multiplies_by_inputs
    assert not ascent.has_convergence_delta()


def test_captums_metrics_tunnel_and_pictures_take_it() -> None:
    model = convolutional(torch.float32)
    x = images(2, torch.float32).to(memory_format=torch.channels_last)
    ascent = PullbackAscent(model, 0.5, step_size=0.4)
    attribution = ascent.attribute(x, target=1)
    assert attribution.is_contiguous()

    torch.manual_seed(0)
    perturb = infidelity_perturb_func_decorator(False)(lambda v: v + 0.1 * torch.randn_like(v))
    unfaithful = infidelity(model, perturb, x, attribution, target=1, normalize=True)
    unstable = sensitivity_max(ascent.attribute, x, target=1, n_perturb_samples=2)
    assert torch.isfinite(torch.cat([unfaithful, unstable])).all()

    # next to no noise, so that the average is known
    tunnel = NoiseTunnel(ascent).attribute(x, nt_samples=2, stdevs=1e-12, target=1)
    torch.testing.assert_close(tunnel, attribution, rtol=1e-3, atol=1e-4)

    figure, _ = visualization.visualize_image_attr(
        attribution[0].permute(1, 2, 0).numpy(), sign="all", use_pyplot=False
    )
    assert figure.axes


def test_captums_robustness_metrics_take_it() -> None:
    model = convolutional()
    comparator = AttackComparator(model, lambda output, target: output[:, target])
    comparator.add_attack(
        PullbackAscent(model, step_size=0.4), "ascent", additional_attack_arg_names=["target"]
    )
    result = comparator.evaluate(images(), target=1)
    assert (result["ascent"]["mean"] > result["Original"] + 0.1).all()


def test_nothing_of_the_callers_is_changed() -> None:
    model = Handmade(lambda net, x: net.inner(x.mul_(2).relu_()), inner=convolutional())
    x = images()
    before, weights, random = x.clone(), copy.deepcopy(model.state_dict()), torch.get_rng_state()
    ascent = PullbackAscent(model, step_size=0.4)
    known = dict(vars(ascent))
    with torch.no_grad():
        found = ascent.perturb(x, 1)
        assert not torch.is_grad_enabled()
    assert torch.equal(found, ascent.perturb(x, 1))
    careful = PullbackAscent(lambda x: model.inner((x * 2).relu()), step_size=0.4)
    torch.testing.assert_close(found, careful.perturb(x, 1), rtol=1e-12, atol=1e-12)
    assert torch.equal(ascent.perturb(x.requires_grad_(), 1), found)
    assert x.grad is None
    assert x.requires_grad
    assert torch.equal(x, before)
    assert vars(ascent) == known
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert hooks(model) == []
    assert all(p.grad is None for p in model.parameters())


def never(x: Tensor) -> Tensor:
    raise AssertionError("the network must not run")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps must be at least 1, not 0"),
        ({"steps": 2.0}, TypeError, "steps must be an int"),
        ({"steps": True}, TypeError, "steps must be an int"),
        ({"step_size": 0}, ValueError, "step_size must be above 0"),
        ({"step_size": math.nan}, ValueError, "step_size must be above 0"),
        ({"step_size": math.inf}, ValueError, "step_size must be finite"),
        ({"step_size": "1"}, TypeError, "step_size must be a number"),
        ({"radius": -1}, ValueError, "radius must be above 0"),
        ({"temperature": -1}, ValueError, "temperature"),
        ({"bounds": 1.0}, TypeError, "a pair"),
        ({"bounds": (0, 1, 2)}, TypeError, "a pair"),
        ({"bounds": ("a", "b")}, TypeError, "numbers"),
        ({"bounds": (1, 0)}, ValueError, "lowest, highest"),
        ({"bounds": (0, math.nan)}, ValueError, "lowest, highest"),
        ({"bounds": ([0, 0], [1, 1, 1])}, ValueError, "do not fit each other"),
    ],
)
def test_settings_that_make_no_sense(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        PullbackAscent(convolutional(), **settings)


@pytest.mark.parametrize(
    ("inputs", "settings", "error", "message"),
    [
        ([1.0, 2.0], {}, TypeError, "must be a tensor, not list"),
        (torch.ones(2, 3, dtype=torch.int64), {}, TypeError, "floating point"),
        ((torch.ones(2, 3), 5), {}, TypeError, "part 1 of inputs must be a tensor"),
        ((torch.ones(2, 3), torch.ones(3, 3)), {}, ValueError, r"\[2, 3\] examples"),
        (torch.tensor(1.0), {}, ValueError, r"shape \(N, ...\)"),
        (torch.ones(0, 3), {}, ValueError, r"shape \(N, ...\), not \(0, 3\)"),
        (torch.tensor([[1.0, math.nan]]), {}, ValueError, "NaN or infinite"),
        (torch.ones(2, 3), {"bounds": ([0, 0], [1, 1])}, ValueError, r"shape \(2,\) do not fit"),
        (torch.eye(3)[:, :2], {"relative": True}, ValueError, "example 2 is all zeros"),
    ],
)
def test_inputs_that_make_no_sense(
    inputs: Any, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        PullbackAscent(never, **settings).perturb(inputs, 0)


def test_scores_that_are_not_finite() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.log(x.relu().sum(dim=1, keepdim=True) - 1)

    with pytest.raises(ValueError, match="score is not finite in example 1, at the inputs"):
        PullbackAscent(model).perturb(torch.tensor([[1.0, 3.0], [0.5, 0.4]]), 0)

    def explodes(x: Tensor) -> Tensor:
        return (x.relu().sum(dim=1, keepdim=True) * 40).exp()

    with pytest.raises(ValueError, match="not finite in example 0, after 1 of 5 steps"):
        PullbackAscent(explodes).perturb(torch.ones(1, 2), 0)


def test_a_gradient_that_is_not_finite() -> None:
    with pytest.raises(ValueError, match="gradient is not finite in example 0"):
        PullbackAscent(lambda x: x.relu().sqrt().sum(dim=1), 0.3).perturb(torch.zeros(1, 2), None)


def test_networks_without_gates_and_wrong_targets() -> None:
    with pytest.raises(SofteningError):
        PullbackAscent(nn.Linear(3, 2)).perturb(torch.ones(1, 3), 0)
    with pytest.raises((IndexError, AssertionError), match="the target does not fit the output"):
        PullbackAscent(convolutional()).perturb(images(), 99)
