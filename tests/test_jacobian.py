"""Gradients of many outputs from one forward pass: as many at once as is worth it, and right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from captum_pullback import SEMANTIC, effective_weights
from captum_pullback.engine.calls.held import Context, Held
from captum_pullback.engine.rules import Rule


class _Counted(TorchDispatchMode):
    """Counts calls of an operator, the backward passes' included."""

    def __init__(self, operator: Any) -> None:
        super().__init__()
        self.operator, self.calls = operator, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += func is self.operator
        return func(*args, **(kwargs or {}))


def network(classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 2),
        nn.GELU(), nn.Flatten(), nn.LayerNorm(20), nn.Linear(20, classes),
    ).double().eval()  # fmt: skip


@pytest.mark.parametrize("temperature", [0.0, 0.4])
def test_a_convolution_is_called_once_for_all_classes(temperature: float) -> None:
    model, x = network(12), torch.randn(2, 2, 8, 8, dtype=torch.float64)
    with _Counted(torch.ops.aten.convolution_backward.default) as counted:
        weight, bias = effective_weights(model, x, temperature=temperature)
    assert counted.calls == 2
    for index in range(12):
        alone, constant = effective_weights(model, x, index, temperature=temperature)
        torch.testing.assert_close(weight[:, index : index + 1], alone, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(bias[:, index : index + 1], constant, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("pixels", "calls"), [(128, 2), (400, 7)])
def test_large_activations_are_taken_a_few_classes_at_a_time(pixels: int, calls: int) -> None:
    """4 MiB at once: 4 of 128 x 128 x 8 numbers in float64, and no two of 400 x 400 x 8."""
    model = nn.Sequential(nn.Conv2d(1, 8, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                          nn.Linear(8, 7)).double()  # fmt: skip
    x = torch.randn(1, 1, pixels, pixels, dtype=torch.float64)
    with _Counted(torch.ops.aten.convolution_backward.default) as counted:
        weight, _ = effective_weights(model, x)
    assert counted.calls == calls
    conv, linear = model[0], model[4]
    open_ = (conv(x) > 0).double() * conv.weight.view(1, 8, 1, 1)
    expected = torch.einsum("kc,nchw->nkhw", linear.weight, open_)[:, :, None] / pixels**2
    torch.testing.assert_close(weight, expected.detach(), rtol=1e-10, atol=1e-18)


def test_a_rule_that_reads_its_gradient_is_asked_for_one_class_at_a_time() -> None:
    seen: list[float] = []

    def pull(context: Context, grad: Tensor, x: Tensor) -> Tensor:
        seen.append(grad.abs().max().item())  # which nothing can give for many at once
        return 0.25 * grad

    def run(operation: Any, x: Tensor) -> tuple[Tensor]:
        return (0.25 * x,)

    rules = {**SEMANTIC, "softsign": Rule(lambda: Held(pull, run=run, softens=False))}
    linear = nn.Linear(4, 5).double()
    model = nn.Sequential(nn.Softsign(), linear)
    x = torch.randn(3, 4, dtype=torch.float64)
    weight, _ = effective_weights(model, x, rules=rules)
    torch.testing.assert_close(weight, (0.25 * linear.weight.detach()).expand(3, 5, 4))
    assert len(seen) >= 5


def test_a_tangent_does_not_trust_rules_that_nothing_checks() -> None:
    """`torch.func.vmap` gets the derivative of cdist wrong, and of a tangent b is what is left."""
    centers, x = torch.randn(5, 3).double(), torch.randn(2, 3).double()
    weight, bias = effective_weights(lambda t: torch.cdist(t, centers), x, linearize=True)
    apart = x[:, None] - centers
    distance = apart.norm(dim=2)
    torch.testing.assert_close(weight, apart / distance[..., None], rtol=1e-10, atol=0)
    torch.testing.assert_close(
        bias, distance - (weight * x[:, None]).sum(2), rtol=1e-10, atol=1e-12
    )


def test_half_precision_which_nothing_checks_either_is_right() -> None:
    model, x = network(6).bfloat16(), torch.randn(1, 2, 8, 8).bfloat16()
    weight, _ = effective_weights(model, x)
    for index in range(6):
        alone, _ = effective_weights(model, x, index)
        torch.testing.assert_close(weight[:, index : index + 1], alone, rtol=2e-2, atol=2e-3)


def test_an_input_that_does_not_count_has_zeros() -> None:
    linear = nn.Linear(4, 3).double()
    x, other = torch.randn(2, 4, dtype=torch.float64), torch.randn(2, 6, dtype=torch.float64)
    (weight, none), _ = effective_weights(lambda a, b: linear(a).relu(), (x, other))
    assert none.shape == (2, 3, 6)
    assert not none.any()
    expected = (linear(x) > 0).double()[..., None] * linear.weight
    torch.testing.assert_close(weight, expected.detach())
