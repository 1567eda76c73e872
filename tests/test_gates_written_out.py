"""Gates that networks write out themselves, and gradients that they take through held gates."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from pulls import by_reference
from reference import gradient
from torch import Tensor, nn

from captum_pullback import SEMANTIC, ExcitationPullback, soften

Function = Callable[[Tensor], Tensor]


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 4, dtype=torch.float64)


def held(function: Function, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    with soften(nn.Identity(), 0, rules=SEMANTIC):
        return gradient(function(leaf).sum(), leaf)


def inner(x: Tensor) -> Tensor:
    return math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)


# name: (written out, the gate)
GELUS: dict[str, tuple[Function, Function]] = {
    "tanh": (lambda x: 0.5 * x * (1 + torch.tanh(inner(x))), lambda x: (1 + inner(x).tanh()) / 2),
    "tanh, the gate by itself": (
        lambda x: x * (0.5 * (1.0 + torch.tanh(inner(x)))), lambda x: (1 + inner(x).tanh()) / 2
    ),
    "erf": (
        lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))), torch.special.ndtr
    ),
    "erf, in place": (
        lambda x: (x * 0.5).mul_(torch.erf(x / math.sqrt(2.0)).add(1.0)), torch.special.ndtr
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GELUS)
def test_gelu_written_out_is_held_as_gelu_is(name: str, x: Tensor) -> None:
    function, gate = GELUS[name]
    torch.testing.assert_close(held(function, x), gate(x))
    torch.testing.assert_close(ExcitationPullback(lambda x: function(x).sum(1), 0).attribute(x),
                               gate(x))  # fmt: skip


def test_tanh_without_a_constant_is_no_gate(x: Tensor) -> None:
    """Each of the two factors passes on one half: that of tanh by its secant."""
    torch.testing.assert_close(held(lambda x: x * torch.tanh(x), x), x.tanh())
    residual = held(lambda x: x * (x + torch.tanh(x)), x)
    torch.testing.assert_close(residual, (x + x.tanh()) / 2 + x * (1 + x.tanh() / x) / 2)


MIX = torch.tensor([[0.7, -0.4], [0.2, 1.1]], dtype=torch.float64)
MIXES: dict[str, Function] = {
    "einsum": lambda w: torch.einsum("gh,bhij->bgij", nn.Parameter(MIX), w),
    "conv2d": lambda w: F.conv2d(w, nn.Parameter(MIX[:, :, None, None])),
    "linear": lambda w: F.linear(w.movedim(1, -1), nn.Parameter(MIX)).movedim(-1, 1),
}


@pytest.mark.parametrize("mix", MIXES)
def test_attention_whose_heads_talk_is_held(mix: str) -> None:
    x = torch.randn(1, 2, 5, 3, dtype=torch.float64)
    weights = torch.einsum("gh,bhij->bgij", MIX, (x @ x.mT).softmax(-1))

    def forward(x: Tensor) -> Tensor:
        return MIXES[mix]((x @ x.mT).softmax(-1)) @ x

    torch.testing.assert_close(held(forward, x), weights.mT @ torch.ones_like(x))


def test_a_hidden_layer_of_sigmoids_is_no_gate(x: Tensor) -> None:
    """Weights of both signs mix what they give: the product's factors get a half each."""
    weight = nn.Parameter(torch.randn(4, 4, dtype=torch.float64))
    found = held(lambda x: F.linear(x.sigmoid(), weight) * x, x)
    hidden = x.sigmoid() @ weight.detach().T
    secant = (x.sigmoid() - 0.5) / x
    torch.testing.assert_close(found, hidden / 2 + (x @ weight.detach()) * secant / 2)


def test_autocast_with_a_learned_bias_runs_the_same_kernel() -> None:
    query, key, value = (torch.randn(2, 2, 7, 8, requires_grad=True) for _ in range(3))
    bias = nn.Parameter(torch.randn(2, 7, 7))
    with torch.autocast("cpu", torch.bfloat16):
        outside = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        with soften(nn.Identity(), 0, rules=SEMANTIC):
            inside = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    assert torch.equal(inside, outside)


# --- gradients of a network's own -----------------------------------------------------------------

WEIGHT = torch.tensor(
    [[0.6, -0.8, 0.3, 1.1], [-0.4, 0.9, 0.7, -0.2], [0.5, 0.1, -0.6, 0.8], [0.2, 0.3, 0.1, -0.9]],
    dtype=torch.float64,
)
ENERGIES: dict[str, Function] = {
    "layer_norm": lambda x: F.layer_norm(x, (4,)) @ WEIGHT,
    "rms_norm": lambda x: F.rms_norm(x, (4,)) @ WEIGHT,
    "group_norm": lambda x: F.group_norm(x, 2) @ WEIGHT,
    "instance_norm": lambda x: F.instance_norm(x[None])[0] @ WEIGHT,
    "normalize": lambda x: F.normalize(x) @ WEIGHT,
    "attention": lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None])[0] @ WEIGHT,
    "attention, written out": lambda x: (x @ x.T).softmax(-1) @ x @ WEIGHT,
    "a product": lambda x: x * x.flip(1),
    "a quotient": lambda x: x / (2 + x.sigmoid()),
    "a gate": lambda x: x * x.sigmoid(),
    "gelu": F.gelu,
    "prelu": lambda x: F.prelu(x, torch.tensor([0.2], dtype=x.dtype)),
    "softplus": F.softplus,
    "glu": F.glu,
    "in place": lambda x: F.elu_(x * 1),
    "a pool": lambda x: F.max_pool1d(x[None], 2)[0],
}


class Steps(nn.Module):
    """A step along the slope of an energy, as diffusion and equilibrium networks take it."""

    def __init__(self, energy: Function, create_graph: bool) -> None:
        super().__init__()
        self.energy, self.create_graph = energy, create_graph

    def forward(self, x: Tensor) -> Tensor:
        start = x if self.create_graph else x.detach().clone().requires_grad_()
        energy = self.energy(start).square().sum()
        (slope,) = torch.autograd.grad(energy, start, create_graph=self.create_graph)
        return F.relu(x - 0.3 * slope)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", ENERGIES)
def test_gradients_of_its_own_leave_the_forward_pass(
    name: str, create_graph: bool, x: Tensor
) -> None:
    if name == "attention" and create_graph:
        pytest.skip("PyTorch has no second derivative of its attention")
    model, leaf = Steps(ENERGIES[name], create_graph), x.clone().requires_grad_()
    outside = model(leaf)
    with soften(model, 0.5, rules=SEMANTIC):
        inside = model(leaf)
        inside.sum().backward()
    torch.testing.assert_close(inside, outside, rtol=1e-12, atol=1e-14)
    values: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        values.append(model(x).sum(1))
        return values[-1]

    found = ExcitationPullback(watched, 0.5).attribute(x)
    torch.testing.assert_close(values[-1], outside.sum(1), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found, leaf.grad)
    if not create_graph:  # the slope is a constant then
        z = by_reference_input(model, x)
        torch.testing.assert_close(found, torch.sigmoid(z / 0.5))


def by_reference_input(model: Steps, x: Tensor) -> Tensor:
    """What the last gate gets."""
    return x - 0.3 * by_reference(lambda x: model.energy(x).square(), x)
