"""Rules that users write themselves: one function and one row, from outside the package."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from handmade import Handmade
from reference import relative_error
from torch import Tensor, nn

from captum_pullback import SEMANTIC, ExcitationPullback, Held, Rule, soften


def open_wide(context: object, grad: Tensor) -> Tensor:
    """A gate that is always open: what comes back goes on."""
    return grad


def half_open(scale: float, **_: float) -> Held:
    """A gate of a constant, which is read from the call's arguments."""
    return Held(lambda context, grad: grad * scale, saves=(), softens=False)


@pytest.fixture
def net() -> nn.Module:
    return Handmade(
        lambda net, x: net.two(F.gelu(net.act(net.one(x)))),
        one=nn.Linear(4, 5), act=nn.Softsign(), two=nn.Linear(5, 3),
    ).double()  # fmt: skip


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 4, dtype=torch.float64)


def through_the_net(net: nn.Module, x: Tensor, gate: Tensor) -> Tensor:
    """The pullback of class 1 by hand, for a gate of the first activation."""
    z = F.softsign(net.one(x))
    normal = (1 + torch.erf(z / 2**0.5)) / 2
    return (net.two.weight[1] * normal * gate) @ net.one.weight


def test_a_rule_of_ones_own_replaces_a_known_one(net: nn.Module, x: Tensor) -> None:
    rule = Rule(lambda: Held(open_wide, saves=(), softens=False))
    found = ExcitationPullback(net, 0, rules={**SEMANTIC, "softsign": rule}).attribute(x, 1)
    expected = through_the_net(net, x, torch.ones(2, 5, dtype=torch.float64))
    assert relative_error(found, expected) < 1e-12
    z = net.one(x)
    known = ExcitationPullback(net, 0, rules=SEMANTIC).attribute(x, 1)
    assert relative_error(known, through_the_net(net, x, F.softsign(z) / z)) < 1e-12


def test_it_may_look_at_the_input_and_at_the_temperature(net: nn.Module, x: Tensor) -> None:
    def pull(context: object, grad: Tensor, z: Tensor) -> Tensor:
        return grad * torch.exp(-z.abs() / context.temperature(z))

    rules = {**SEMANTIC, "softsign": Rule(lambda: Held(pull)), "gelu": "held"}
    temperature = {"softsign": 0.7, "": 0}
    leaf = x.clone().requires_grad_()
    with soften(net, temperature, rules=rules) as record:
        found = torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)[0]
    expected = through_the_net(net, x, torch.exp(-net.one(x).abs() / 0.7))
    assert relative_error(found, expected) < 1e-12
    (met,) = record.softened
    assert (met.module, met.operation, met.calls, met.temperature) == ("act", "softsign", 1, "0.7")


def test_it_holds_in_one_module_alone(x: Tensor) -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh()).double()
    rule = Rule(lambda: Held(open_wide, saves=(), softens=False))
    rules = {**SEMANTIC, "3": {**SEMANTIC, "tanh": rule}}
    found = ExcitationPullback(net, 0, rules=rules).attribute(x, 2)
    z = net[0](x)
    expected = (net[2].weight[2] * torch.tanh(z) / z) @ net[0].weight
    assert relative_error(found, expected) < 1e-12


def test_a_rule_reads_the_arguments_of_a_call(x: Tensor) -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.CELU(0.25)).double()
    rule = Rule(lambda alpha: half_open(alpha))
    found = ExcitationPullback(net, 0, rules={**SEMANTIC, "celu": rule}).attribute(x, 0)
    assert relative_error(found, (0.25 * net[0].weight[0]).expand(2, 4)) < 1e-12


def test_a_rule_for_a_function_that_nobody_knows(x: Tensor) -> None:
    """A custom operator, whose gate is told by the user: x^3 as x held twice."""

    @torch.library.custom_op("captum_pullback_tests::cube", mutates_args=())
    def cube(z: Tensor) -> Tensor:
        return z**3

    torch.library.register_autograd(
        "captum_pullback_tests::cube",
        lambda ctx, grad: grad * 3 * ctx.z**2,
        setup_context=lambda ctx, inputs, output: setattr(ctx, "z", inputs[0]),
    )
    function = torch.ops.captum_pullback_tests.cube.default
    weight = torch.randn(4, 3, dtype=torch.float64)

    def pull(context: object, grad: Tensor, z: Tensor) -> Tensor:
        return grad * z**2

    rules = {**SEMANTIC, function: Rule(lambda: Held(pull, softens=False))}
    found = ExcitationPullback(lambda x: function(x @ weight), 0, rules=rules).attribute(x, 1)
    expected = ((x @ weight)[:, 1:2] ** 2) * weight[:, 1]
    assert relative_error(found, expected) < 1e-12


def test_no_rules_at_all_are_the_plain_gradient() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 2))
    x = torch.randn(3, 4, requires_grad=True)
    (plain,) = torch.autograd.grad(network(x)[:, 1].sum(), x)
    found = ExcitationPullback(network, 0.0, rules={}).attribute(x.detach(), 1)
    torch.testing.assert_close(found, plain)
