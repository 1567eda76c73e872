"""Which spellings of an operation are met as gates, and which are met and left hard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference import gradient
from torch import Tensor, nn

from captum_pullback import EXCITATION, soften

aten = torch.ops.aten


class Rectifier(nn.ReLU):
    """A subclass counts as what it inherits."""


RELUS: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": lambda z: nn.ReLU(inplace=True)(z.clone()),
    "subclass": Rectifier(),
    "F.relu": F.relu,
    "F.relu keyword": lambda z: F.relu(input=z),
    "F.relu inplace": lambda z: F.relu(z.clone(), inplace=True),
    "F.relu_": lambda z: F.relu_(z.clone()),
    "torch.relu": torch.relu,
    "torch.relu_": lambda z: torch.relu_(z.clone()),
    "Tensor.relu": lambda z: z.relu(),
    "Tensor.relu_": lambda z: z.clone().relu_(),
    "torch.clamp": lambda z: torch.clamp(z, 0),
    "torch.clamp min": lambda z: torch.clamp(z, min=0.0),
    "torch.clamp input": lambda z: torch.clamp(input=z, min=0),
    "Tensor.clamp": lambda z: z.clamp(min=0),
    "Tensor.clamp_": lambda z: z.clone().clamp_(min=0),
    "torch.clip": lambda z: torch.clip(z, 0),
    "Tensor.clip": lambda z: z.clip(0),
    "torch.clamp_min": lambda z: torch.clamp_min(z, 0),
    "Tensor.clamp_min": lambda z: z.clamp_min(0.0),
    "Tensor.clamp_min_": lambda z: z.clone().clamp_min_(0),
    "nn.Threshold": nn.Threshold(0, 0),
    "F.threshold": lambda z: F.threshold(z, 0, 0),
    "F.threshold_": lambda z: F.threshold_(z.clone(), 0.0, 0.0),
    "aten.relu": aten.relu.default,
    "aten.relu_": lambda z: aten.relu_.default(z.clone()),
    "aten.clamp_min": lambda z: aten.clamp_min.default(z, 0),
    "aten.threshold": lambda z: aten.threshold.default(z, 0, 0),
    "leaky_relu 0": lambda z: F.leaky_relu(z, 0.0),
    "nn.LeakyReLU 0 in place": lambda z: nn.LeakyReLU(0.0, inplace=True)(z.clone()),
}


@pytest.mark.parametrize("spelling", RELUS)
def test_every_spelling_of_relu_is_one_gate(spelling: str) -> None:
    z = torch.linspace(-3, 3, 50, dtype=torch.float64, requires_grad=True)
    with soften(nn.Identity(), 0.4, rules=EXCITATION) as record:
        found = gradient(RELUS[spelling](z).sum(), z)
    torch.testing.assert_close(found, torch.sigmoid(z.detach() / 0.4))
    assert [met.calls for met in record.softened] == [1]
    assert record.left_hard == []


def packet(z: Tensor) -> Tensor:
    return aten.relu(z)


def by_aten_name(z: Tensor) -> Tensor:
    return aten.relu.default(self=z)


@pytest.mark.parametrize("operation", [packet, by_aten_name])
def test_every_spelling_of_aten_relu_is_a_gate(operation: Callable[[Tensor], Tensor]) -> None:
    z = torch.linspace(-3, 3, 50, requires_grad=True)
    with soften(nn.Identity(), 0.4, rules=EXCITATION):
        F.relu(z)  # so that soften does not complain
        found = gradient(operation(z).sum(), z)
    torch.testing.assert_close(found, torch.sigmoid(z.detach() / 0.4))


CAPPED: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.ReLU6": nn.ReLU6(),
    "nn.ReLU6 in place": lambda z: nn.ReLU6(inplace=True)(z.clone()),
    "F.relu6": F.relu6,
    "F.relu6 inplace": lambda z: F.relu6(z.clone(), inplace=True),
    "F.hardtanh": lambda z: F.hardtanh(z, 0, 6),
    "F.hardtanh_": lambda z: F.hardtanh_(z.clone(), 0.0, 6.0),
    "nn.Hardtanh": nn.Hardtanh(0, 6),
    "clamp": lambda z: z.clamp(0, 6),
    "clamp_": lambda z: z.clone().clamp_(min=0, max=6),
    "aten.hardtanh": lambda z: aten.hardtanh.default(z, 0, 6),
}


@pytest.mark.parametrize("spelling", CAPPED)
def test_every_spelling_of_relu6_is_one_gate(spelling: str) -> None:
    z = torch.linspace(-3, 9, 50, dtype=torch.float64, requires_grad=True)
    with soften(nn.Identity(), 0.4, rules=EXCITATION) as record:
        found = gradient(CAPPED[spelling](z).sum(), z)
    opened, capped = torch.sigmoid(z.detach() / 0.4), torch.sigmoid((z.detach() - 6) / 0.4)
    torch.testing.assert_close(found, opened - capped)
    assert [met.calls for met in record.softened] == [1]


POOLS: dict[str, Callable[[Tensor], Any]] = {
    "nn.MaxPool2d": nn.MaxPool2d(2),
    "nn.MaxPool2d indices": lambda x: nn.MaxPool2d(2, return_indices=True)(x)[0],
    "F.max_pool2d": lambda x: F.max_pool2d(x, 2),
    "F.max_pool2d keywords": lambda x: F.max_pool2d(input=x, kernel_size=2, stride=2, padding=0),
    "F indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "F.max_pool2d_with_indices": lambda x: F.max_pool2d_with_indices(x, 2)[0],
    "torch.max_pool2d": lambda x: torch.max_pool2d(x, (2, 2)),
    "aten.max_pool2d": lambda x: aten.max_pool2d.default(x, [2, 2]),
    "aten indices": lambda x: aten.max_pool2d_with_indices.default(x, [2, 2], [2, 2])[0],
    "nn.AdaptiveMaxPool2d": nn.AdaptiveMaxPool2d(3),
    "F.adaptive": lambda x: F.adaptive_max_pool2d(x, (3, 3)),
    "F.adaptive indices": lambda x: F.adaptive_max_pool2d(x, 3, return_indices=True)[0],
    "aten.adaptive": lambda x: aten.adaptive_max_pool2d.default(x, [3, 3])[0],
    "as 3d": lambda x: nn.MaxPool3d((1, 2, 2))(x),
}


@pytest.mark.parametrize("reading", ["held", "differentiated"])
@pytest.mark.parametrize("spelling", POOLS)
def test_every_spelling_of_a_pool_is_one_gate(spelling: str, reading: str) -> None:
    x = torch.randn(1, 2, 6, 6, dtype=torch.float64, requires_grad=True)
    blocks = x.detach().unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2)
    weight = torch.softmax(blocks / 0.3, -1)
    share = weight
    if reading == "differentiated":
        share = weight * (1 + (blocks - (weight * blocks).sum(-1, keepdim=True)) / 0.3)
    expected = share.unflatten(-1, (2, 2)).transpose(3, 4).reshape(1, 2, 6, 6)
    rules = {**EXCITATION, "max_pool": reading}
    with soften(nn.Identity(), pool_temperature=0.3, rules=rules) as record:
        found = gradient(POOLS[spelling](x).sum(), x)
    assert [met.calls for met in record.softened] == [1]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("pools", [nn.MaxPool1d(2), nn.AdaptiveMaxPool1d(2), nn.MaxPool3d(1)])
def test_pools_of_one_and_three_dimensions_are_gates(pools: nn.Module) -> None:
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    with soften(pools, 0.3) as record:
        pools(x[0] if "1d" in type(pools).__name__ else x)
    assert len(record.softened) == 1


NO_GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "clamp 1": lambda x: x.clamp(min=1),
    "clamp max": lambda x: x.clamp(max=0),
    "clamp tensor": lambda x: x.clamp(min=torch.zeros(1, dtype=x.dtype)),
    "rrelu in training": lambda x: F.rrelu(x, training=True),
    "sigmoid": torch.sigmoid,
    "tanh": lambda x: x.tanh(),
    "gelu": F.gelu,
    "silu": nn.SiLU(),
    "softmax": lambda x: x.softmax(-1),
    "elu": nn.ELU(),
    "hardswish": F.hardswish,
    "softplus": F.softplus,
    "abs": torch.abs,
    "maximum": lambda x: torch.maximum(x, torch.zeros(1, dtype=x.dtype)),
    "max": lambda x: x.max(-1).values,
    "amax": lambda x: x.amax(-1),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "sqrt": lambda x: x.sqrt(),
    "exp": torch.exp,
}


@pytest.mark.parametrize("name", NO_GATES)
def test_what_is_no_gate_keeps_its_derivative(name: str) -> None:
    x = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(1)
    plain = gradient(NO_GATES[name](x).sum(), x)
    with soften(nn.Identity(), 0.4, rules=EXCITATION):
        beside = F.relu(x).sum()  # so that there is a gate on the way
        torch.manual_seed(1)
        found = gradient(NO_GATES[name](x).sum() + beside, x)
    torch.testing.assert_close(found, plain + torch.sigmoid(x / 0.4), rtol=1e-14, atol=1e-14)


MORE_NO_GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "log": torch.log,
    "pow": lambda x: x**3,
    "logsumexp": lambda x: x.logsumexp(-1),
    "erf": torch.erf,
    "sin": torch.sin,
    "where": lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
    "nn.RNN": lambda x: nn.RNN(4, 2, nonlinearity="relu").double()(x)[0],
    "nn.LSTM": lambda x: nn.LSTM(4, 2).double()(x)[0],
    "topk": lambda x: x.topk(2).values,
    "batch_norm in training": lambda x: F.batch_norm(x, None, None, training=True),
    "F.dropout, which trains by default": F.dropout,
    "torch.dropout": lambda x: torch.dropout(x, 0.5, True),
    "F.dropout2d": lambda x: F.dropout2d(x[None, None]),
    "F.alpha_dropout": lambda x: F.alpha_dropout(x, training=True),
}


@pytest.mark.parametrize("name", NO_GATES | MORE_NO_GATES)
def test_what_is_no_gate_is_recorded_as_left_hard(name: str) -> None:
    x = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    with soften(nn.Identity(), 0.4, rules=EXCITATION) as record:
        F.relu(x)
        (NO_GATES | MORE_NO_GATES)[name](x)
    assert len(record.left_hard) == 1


def test_what_has_no_gradient_is_not_counted() -> None:
    x = torch.rand(3, requires_grad=True)
    with soften(nn.Identity(), 0.4) as record:
        F.relu(x)
        F.relu(x.detach())
        with torch.no_grad():
            F.relu(x)
    assert [met.calls for met in record.softened] == [1]
