"""Random networks, drawn by hypothesis, against a plain interpreter of the same drawing.

A network is a list of steps over a list of values; each step appends one. Both sides walk the
list: the network with modules and functions of PyTorch, the interpreter with the reference's.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from reference import gradient, max_pool2d, relu
from torch import Tensor, nn

from captum_pullback import EXCITATION, ExcitationPullback, soften

CHANNELS, SIZE = 2, 6
Step = tuple[str, int, int]

OPERATIONS = (
    "conv", "batch_norm", "module", "reused", "functional", "method", "inplace", "clamp",
    "leaky", "max_pool", "adaptive", "avg_pool", "add", "multiply", "concatenate", "detour",
)  # fmt: skip


class Network(nn.Module):
    def __init__(self, steps: list[Step], seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.steps = steps
        self.relu = nn.ReLU()
        self.inplace = nn.ReLU(inplace=True)
        self.parts = nn.ModuleDict()
        for number, (name, _, _) in enumerate(steps):
            if name in ("conv", "detour"):
                self.parts[str(number)] = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
            elif name == "concatenate":
                self.parts[str(number)] = nn.Conv2d(2 * CHANNELS, CHANNELS, 1)
            elif name == "batch_norm":
                self.parts[str(number)] = nn.BatchNorm2d(CHANNELS)
            elif name == "module":
                self.parts[str(number)] = nn.ReLU()
        self.double().eval()
        for name, tensor in self.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, dtype=torch.float64, generator=generator)
                tensor.copy_(noise + 0.2 if "running_var" in name else 1.4 * noise - 0.6)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for number, (name, one, other) in enumerate(self.steps):
            a, b = values[one % len(values)], values[other % len(values)]
            part = dict(self.parts.named_children()).get(str(number))
            values.append(self.step(name, part, a, b))
        # With the first gate's output, so that there is always a gate on the way.
        return sum(value.mean((1, 2, 3)) for value in (values[1], *values[-3:]))  # type: ignore[return-value]

    def step(self, name: str, part: Any, a: Tensor, b: Tensor) -> Tensor:
        if name in ("conv", "batch_norm", "module"):
            return part(a)
        if name == "reused":
            return self.relu(self.relu(a) - 0.2)
        if name == "functional":
            return F.relu(a)
        if name == "method":
            return a.relu()
        if name == "inplace":
            return self.inplace(a - 0.1)
        if name == "clamp":
            return (a * 1).clamp_(min=0)
        if name == "leaky":
            return F.leaky_relu(a, 0.1)
        if name == "max_pool":
            return F.max_pool2d(a, 3, 1, 1)
        if name == "adaptive":
            return F.interpolate(F.adaptive_max_pool2d(a, 3), SIZE)
        if name == "avg_pool":
            return F.avg_pool2d(a, 3, 1, 1)
        if name == "add":
            return a + b
        if name == "multiply":
            return a * b * 0.3
        if name == "concatenate":
            return part(torch.cat([a, b], 1))
        with torch.enable_grad():  # "detour": through a view, a loop and the part twice
            parts = [part(half) for half in (part(a).flip(2), b.transpose(2, 3))]
        return torch.stack(parts).relu().sum(0)


def interpret(network: Network, x: Tensor, t: float, pool_t: float) -> Tensor:
    weights = network.state_dict()
    values = [x]
    for number, (name, one, other) in enumerate(network.steps):
        a, b = values[one % len(values)], values[other % len(values)]

        def of(what: str, number: int = number) -> Tensor:
            return weights[f"parts.{number}.{what}"]

        def conv(x: Tensor, number: int = number) -> Tensor:
            weight = of("weight", number)
            return F.conv2d(x, weight, of("bias", number), padding=weight.shape[-1] // 2)

        if name == "batch_norm":
            scale = of("weight") / (of("running_var") + 1e-5).sqrt()
            shift = of("bias") - of("running_mean") * scale
            value = a * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
        else:
            value = {
                "conv": lambda a, b: conv(a),
                "module": lambda a, b: relu(a, t),
                "reused": lambda a, b: relu(relu(a, t) - 0.2, t),
                "functional": lambda a, b: relu(a, t),
                "method": lambda a, b: relu(a, t),
                "inplace": lambda a, b: relu(a - 0.1, t),
                "clamp": lambda a, b: relu(a, t),
                "leaky": lambda a, b: 0.1 * a + 0.9 * relu(a, t),
                "max_pool": lambda a, b: max_pool2d(a, pool_t, 3, 1, 1),
                "adaptive": lambda a, b: (
                    max_pool2d(a, pool_t, 2, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
                ),
                "avg_pool": lambda a, b: (
                    F.pad(a, (1,) * 4).unfold(2, 3, 1).unfold(3, 3, 1).mean((4, 5))
                ),
                "add": lambda a, b: a + b,
                "multiply": lambda a, b: a * b * 0.3,
                "concatenate": lambda a, b: conv(torch.cat([a, b], 1)),
                "detour": lambda a, b: (
                    relu(conv(conv(a).flip(2)), t) + relu(conv(b.transpose(2, 3)), t)
                ),
            }[name](a, b)
        values.append(value)
    return sum(value.mean((1, 2, 3)) for value in (values[1], *values[-3:]))  # type: ignore[return-value]


some_steps = st.lists(
    st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 20), st.integers(0, 20)),
    min_size=1,
    max_size=12,
)
# A first gate, of the input, so that soften never complains.
steps = some_steps.map(lambda steps: [("functional", 0, 0), *steps])
temperatures = st.sampled_from([0, 0.05, 0.3, 2.0, math.inf])


def pictures(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, CHANNELS, SIZE, SIZE, dtype=torch.float64, generator=generator)


@given(steps, temperatures, temperatures, st.integers(0, 9))
def test_pullback_and_forward_agree_with_the_interpreter(
    steps: list[Step], temperature: float, pool_temperature: float, seed: int
) -> None:
    network = Network(steps, seed)
    x = pictures(seed).requires_grad_()
    expected = interpret(network, x, temperature, pool_temperature)
    with soften(network, temperature, pool_temperature=pool_temperature, rules=EXCITATION):
        output = network(x)
        found = torch.autograd.grad(output.sum(), x, materialize_grads=True)[0]
    assert torch.equal(output, network(x))
    torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)
    (reference,) = torch.autograd.grad(expected.sum(), x, materialize_grads=True)
    torch.testing.assert_close(found, reference, rtol=1e-8, atol=1e-10)


@given(steps, temperatures, st.integers(0, 9))
def test_a_batch_is_its_examples_one_by_one(
    steps: list[Step], temperature: float, seed: int
) -> None:
    network, x = Network(steps, seed), pictures(seed)
    with soften(network, temperature, rules=EXCITATION):
        leaf = x.requires_grad_()
        together = torch.autograd.grad(network(leaf).sum(), leaf, materialize_grads=True)[0]
        for number in range(len(x)):
            one = x[number : number + 1].detach().requires_grad_()
            (alone,) = torch.autograd.grad(network(one).sum(), one, materialize_grads=True)
            torch.testing.assert_close(together[number], alone[0], rtol=1e-9, atol=1e-12)


@given(some_steps, temperatures, st.integers(0, 9))
def test_parameters_have_the_interpreters_gradients(
    steps: list[Step], temperature: float, seed: int
) -> None:
    network, x = Network([("conv", 0, 0), ("module", 1, 0), *steps], seed), pictures(seed)
    weight = network.parts["0"].weight
    with soften(network, temperature, rules=EXCITATION):
        found = torch.autograd.grad(network(x).sum(), weight, materialize_grads=True)[0]
    network.state_dict = lambda: dict(network.named_parameters()) | dict(network.named_buffers())  # type: ignore[method-assign]
    expected = interpret(network, x, temperature, temperature).sum()
    (reference,) = torch.autograd.grad(expected, weight, materialize_grads=True)
    torch.testing.assert_close(found, reference, rtol=1e-8, atol=1e-10)


def test_gradient_of_the_interpreter_is_a_plain_gradient_at_zero() -> None:
    network = Network([("conv", 0, 0), ("functional", 1, 0), ("max_pool", 2, 0)], 1)
    x = pictures(1).requires_grad_()
    expected = gradient(interpret(network, x, 0, 0).sum(), x)
    pullback = ExcitationPullback(network, 0).attribute(x)
    torch.testing.assert_close(pullback, expected, rtol=1e-12, atol=1e-14)
