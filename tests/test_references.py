"""The references are the networks that they stand for, and one affine map at each input.

Nothing of the package is needed for that: what it is measured by is measured here.
"""

from __future__ import annotations

import pytest
import torch
from reference import relative_error
from references.gates import affine, apply
from references.networks import CASES, FLOAT32, Case, plain_gradient, tolerance


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, Case]:
    return request.param, CASES[request.param]()


def test_it_is_the_network(case: tuple[str, Case]) -> None:
    name, (model, reference, x) = case
    output, *_ = affine(reference, model.state_dict(), x)
    assert output.shape == (2, output.shape[1])
    assert relative_error(output, model(x)) < tolerance(name)


def test_it_is_the_network_at_another_input_and_with_other_parameters(
    case: tuple[str, Case],
) -> None:
    name, (model, reference, x) = case
    weights = {
        key: value * 1.1 if key.endswith("weight") else value
        for key, value in model.state_dict().items()
    }
    output, *_ = affine(reference, weights, 2 * x + 0.1)
    expected = torch.func.functional_call(model, weights, (2 * x + 0.1,))
    assert relative_error(output, expected) < tolerance(name)


def test_weight_and_bias_make_the_output(case: tuple[str, Case]) -> None:
    _, (model, reference, x) = case
    output, weight, bias, _ = affine(reference, model.state_dict(), x)
    assert weight.shape == (*output.shape, *x.shape[1:])
    assert relative_error(apply(weight, x) + bias, output) < 1e-10
    assert bias.abs().max() > 0.01 * output.abs().max() or case[0] in FLOAT32  # Llama has no bias


def test_the_held_map_is_affine_everywhere(case: tuple[str, Case]) -> None:
    _, (model, reference, x) = case
    _, weight, bias, gates = affine(reference, model.state_dict(), x)
    for elsewhere in (torch.randn_like(x), 100 * torch.rand_like(x)):
        with torch.no_grad(), gates.replayed():
            output = reference(model.state_dict(), elsewhere, gates)
        assert relative_error(apply(weight, elsewhere) + bias, output) < 1e-10


def test_it_is_not_the_plain_gradient(case: tuple[str, Case]) -> None:
    _, (model, reference, x) = case
    _, weight, bias, _ = affine(reference, model.state_dict(), x)
    plain = plain_gradient(model, x)
    assert relative_error(weight, plain) > 0.05
    assert relative_error(apply(plain, x) + bias, model(x)) > 1e-3


def test_each_example_has_gates_of_its_own(case: tuple[str, Case]) -> None:
    _, (model, reference, x) = case
    together = affine(reference, model.state_dict(), x)[:3]
    alone = [affine(reference, model.state_dict(), one)[:3] for one in x.split(1)]
    for batched, single in zip(together, map(torch.cat, zip(*alone, strict=True)), strict=True):
        torch.testing.assert_close(single, batched, rtol=1e-12, atol=1e-12)
