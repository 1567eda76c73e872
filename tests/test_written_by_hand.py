"""Pullbacks against networks that were written a second time, with their gates held by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from families import FAMILIES
from pulling import pulled
from reference import relative_error
from references.gates import Gates, affine, apply
from references.networks import CASES, Case, plain_gradient, tolerance
from tiny import Run
from torch import Tensor, nn

from captum_pullback import SEMANTIC, ExcitationPullback, effective_weights

READINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "derivative": F.relu6,
    "held": lambda z: z * (F.relu6(z) / z).detach(),
    "excited": lambda z: F.relu(z) + (F.relu6(z) - F.relu(z)).detach(),
}


@pytest.mark.parametrize("reading", READINGS)
def test_a_capped_relu_is_read_in_three_ways(reading: str) -> None:
    model, x, precision = FAMILIES["mobilenet_v2"]()
    by_hand = copy.deepcopy(model)
    for module in [*by_hand.modules()]:
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(module, name, Run(READINGS[reading]))
    leaf = x.clone().requires_grad_()
    expected = torch.autograd.grad(by_hand(leaf)[:, 1].sum(), leaf)[0]
    rules = {**SEMANTIC, "relu6": reading}
    assert relative_error(pulled(model, x, rules=rules), expected) < 1e-10
    plain = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)[0]
    assert (relative_error(expected, plain) < 1e-10) == (reading == "derivative")
    if reading != "excited":  # what lies above an open cap is neither of W nor of a parameter
        weight, bias = effective_weights(model, x, rules=rules)
        assert relative_error(apply(weight, x) + bias, model(x)) < precision


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, Case]:
    return request.param, CASES[request.param]()


def test_it_agrees_with_the_network_written_by_hand(case: tuple[str, Case]) -> None:
    name, (model, reference, x) = case
    _, weight, bias, _ = affine(reference, model.state_dict(), x)
    found, found_bias = effective_weights(model, x, rules=SEMANTIC)
    assert relative_error(found, weight) < tolerance(name)
    torch.testing.assert_close(found_bias, bias, rtol=tolerance(name), atol=tolerance(name))
    for target in range(weight.shape[1]):
        pullback = ExcitationPullback(model, 0, rules=SEMANTIC).attribute(x, target=target)
        assert relative_error(pullback, weight[:, target]) < tolerance(name)
    assert relative_error(found, plain_gradient(model, x)) > 0.05


KINDS = {
    "convnext": ["gelu"],
    "efficientnet": ["silu"],
    "llama": ["silu", "attention"],
    "llama_eager": ["silu", "attention"],
}


@pytest.mark.parametrize(("noise", "attention"), [(0.7, 1.0), (2.0, 3.0), (0.1, 0.5)])
def test_softened_it_agrees_with_the_network_written_by_hand(
    case: tuple[str, Case], noise: float, attention: float
) -> None:
    name, (model, reference, x) = case
    leaf = x.clone().requires_grad_()
    output = reference(model.state_dict(), leaf, Gates(noise, attention))
    expected = torch.autograd.grad(output[:, 1].sum(), leaf)[0]
    given = {"gelu": noise, "silu": noise, "attention": attention}
    temperature = {kind: given[kind] for kind in KINDS.get(name, ["gelu", "attention"])}
    found = pulled(model, x, temperature={"": 0, **temperature})
    assert relative_error(output, model(x)) < tolerance(name)
    assert relative_error(found, expected) < tolerance(name)
    assert relative_error(found, pulled(model, x)) > 1e-3
