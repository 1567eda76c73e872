"""The slope of each soft gate, against closed forms and against averages over logistic noise."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from pulls import sigma
from reference import gradient, noisy_slope
from torch import Tensor, nn

from captum_pullback import EXCITATION, soften

inf = math.inf


# name: (operation, its softened slope, written out)
CURVES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, float], Tensor]]] = {
    "relu": (F.relu, sigma),
    "clamp": (lambda z: z.clamp(min=0), sigma),
    "relu6": (F.relu6, lambda z, t: sigma(z, t) - sigma(z - 6, t)),
    "capped": (lambda z: z.clamp(0, 2.5), lambda z, t: sigma(z, t) - sigma(z - 2.5, t)),
    "hardtanh": (F.hardtanh, lambda z, t: sigma(z + 1, t) - sigma(z - 1, t)),
    "hardtanh_wide": (
        lambda z: F.hardtanh(z, -2, 0.5),
        lambda z, t: sigma(z + 2, t) - sigma(z - 0.5, t),
    ),
    "leaky_relu": (lambda z: F.leaky_relu(z, 0.2), lambda z, t: 0.2 + 0.8 * sigma(z, t)),
    "rrelu": (lambda z: F.rrelu(z, 0.1, 0.3), lambda z, t: 0.2 + 0.8 * sigma(z, t)),
    "threshold": (lambda z: F.threshold(z, 1.5, -3.0), lambda z, t: sigma(z - 1.5, t)),
    "prelu": (
        lambda z: F.prelu(z, torch.tensor([0.25], dtype=z.dtype)),
        lambda z, t: 0.25 + 0.75 * sigma(z, t),
    ),
}
every_curve = pytest.mark.parametrize("name", CURVES)


def slope(operation: Callable[[Tensor], Tensor], z: Tensor, temperature: object) -> Tensor:
    z = z.detach().requires_grad_()
    with soften(nn.Identity(), temperature, rules=EXCITATION):
        return gradient(operation(z).sum(), z)


def grid() -> Tensor:
    return torch.linspace(-8.13, 9.37, 701, dtype=torch.float64)


@every_curve
@pytest.mark.parametrize("temperature", [0.01, 0.3, 1.0, 50.0, inf])
def test_slope_is_the_closed_form(name: str, temperature: float) -> None:
    operation, closed_form = CURVES[name]
    found = slope(operation, grid(), temperature)
    torch.testing.assert_close(found, closed_form(grid(), temperature), rtol=1e-12, atol=1e-15)


@every_curve
def test_slope_is_the_plain_slope_averaged_over_logistic_noise(name: str) -> None:
    operation, _ = CURVES[name]
    z = grid()[::50]
    average = noisy_slope(operation, z, 0.7)
    torch.testing.assert_close(slope(operation, z, 0.7), average, rtol=0, atol=2e-4)


@every_curve
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_zero_is_the_plain_gradient_to_the_bit(name: str, dtype: torch.dtype) -> None:
    operation, _ = CURVES[name]
    z = grid().to(dtype).requires_grad_()
    assert torch.equal(slope(operation, z, 0), gradient(operation(z).sum(), z))


@every_curve
@pytest.mark.parametrize("temperature", [1e-4, 1e-30])
def test_small_temperatures_tend_to_the_plain_gradient(name: str, temperature: float) -> None:
    operation, _ = CURVES[name]
    z = grid().requires_grad_()
    torch.testing.assert_close(slope(operation, z, temperature), gradient(operation(z).sum(), z))


@every_curve
def test_large_temperatures_tend_to_the_infinite_one(name: str) -> None:
    operation, _ = CURVES[name]
    large, infinite = slope(operation, grid(), 1e9), slope(operation, grid(), inf)
    torch.testing.assert_close(large, infinite, rtol=0, atol=1e-7)
    assert (infinite == infinite[0]).all()


def test_a_relu_of_infinite_temperature_passes_one_half() -> None:
    assert (slope(F.relu, grid(), inf) == 0.5).all()


@pytest.mark.parametrize("temperature", [0.3, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@every_curve
def test_low_precision_costs_two_roundings_of_the_slope(
    name: str, dtype: torch.dtype, temperature: float
) -> None:
    operation, closed_form = CURVES[name]
    z = grid().to(dtype)
    error = slope(operation, z, temperature).double() - closed_form(z.double(), temperature)
    assert error.abs().max() <= 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["relu6", "hardtanh"])
def test_steps_are_subtracted_in_float32(name: str, dtype: torch.dtype) -> None:
    operation, closed_form = CURVES[name]
    z = grid().to(dtype)
    expected = closed_form(z.double(), 100.0)
    error = (slope(operation, z, 100.0).double() / expected - 1).abs().max()
    assert error <= 2 * torch.finfo(dtype).eps


def test_a_clamp_to_infinity_is_a_relu_at_infinite_temperature() -> None:
    assert (slope(lambda z: z.clamp(0, inf), grid(), inf) == 0.5).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("temperature", [1e-30, 1e-3, 0.3, 1e30, inf])
def test_extreme_pre_activations_stay_finite(dtype: torch.dtype, temperature: float) -> None:
    limits = torch.finfo(dtype)
    z = torch.tensor([limits.min, -1e4, -limits.tiny, 0, limits.tiny, 1e4, limits.max], dtype=dtype)
    found = slope(F.relu, z, temperature)
    assert found.isfinite().all()
    assert (found.diff() >= 0).all()
    assert found[3] == 0.5


@every_curve
@pytest.mark.parametrize("shape", [(4, 1, 1), (4, 3, 5), (1, 1, 1), (5,)])
def test_a_tensor_of_temperatures_is_one_for_each_entry(name: str, shape: tuple[int, ...]) -> None:
    operation, _ = CURVES[name]
    z = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    temperature = torch.rand(shape, dtype=torch.float64) + 0.1
    found = slope(operation, z, {"": temperature})
    each = temperature.expand_as(z)
    for number in {float(t) for t in temperature.flatten()[:6]}:
        expected = slope(operation, z, number)
        assert torch.allclose(found[each == number], expected[each == number], rtol=1e-12)


@every_curve
def test_zeros_and_infinities_in_a_tensor_are_hard_and_linear(name: str) -> None:
    operation, closed_form = CURVES[name]
    z = grid()[:700].reshape(7, 100).contiguous()
    temperature = torch.full((7, 1), 0.3)
    temperature[2], temperature[4] = 0.0, inf
    found, plain = slope(operation, z, {"": temperature}), slope(operation, z, 0)
    assert torch.equal(found[2], plain[2])
    torch.testing.assert_close(found[4], closed_form(z[4], inf))
    torch.testing.assert_close(found[0], closed_form(z[0], 0.3), rtol=1e-6, atol=1e-8)


@every_curve
@pytest.mark.parametrize("mapped", [False, True])
def test_second_derivative_is_that_of_the_soft_slope(name: str, mapped: bool) -> None:
    operation, closed_form = CURVES[name]
    z = grid()[::7].clone().requires_grad_()
    with soften(nn.Identity(), {"": torch.tensor([0.8])} if mapped else 0.8, rules=EXCITATION):
        (first,) = torch.autograd.grad((operation(z) * z.detach()).sum(), z, create_graph=True)
        second = gradient(first.sum(), z)
    expected = gradient((closed_form(z, 0.8) * z.detach()).sum(), z)
    torch.testing.assert_close(second, expected, rtol=1e-6, atol=1e-7 if mapped else 1e-9)


@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 4), (2, 3, 4, 4)])
@pytest.mark.parametrize("parameters", [1, 3])
def test_prelu_softens_its_parameter_alike(shape: tuple[int, ...], parameters: int) -> None:
    layer = nn.PReLU(parameters).double()
    z = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(shape, dtype=torch.float64)
    with soften(layer, 0.4):
        found_z, found_a = torch.autograd.grad(layer(z), (z, layer.weight), upstream)
    a = layer.weight.detach().expand(3).reshape(1, 3, *[1] * (len(shape) - 2))
    opened = sigma(z.detach(), 0.4)
    torch.testing.assert_close(found_z, upstream * (a + (1 - a) * opened))
    per_entry = (upstream * z.detach() * (1 - opened)).transpose(0, 1).flatten(1).sum(1)
    torch.testing.assert_close(found_a, per_entry if parameters == 3 else per_entry.sum()[None])


@every_curve
def test_a_batch_is_its_examples_one_by_one(name: str) -> None:
    operation, _ = CURVES[name]
    z = torch.randn(5, 3, 4, dtype=torch.float64)
    alone = torch.cat([slope(operation, one[None], 0.3) for one in z])
    torch.testing.assert_close(slope(operation, z, 0.3), alone, rtol=1e-13, atol=0)
