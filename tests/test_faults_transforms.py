"""torch.func inside a forward pass: softened, but for forward mode, which is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pulls import EXCITATION_ONLY, WAYS, Function, by_reference, sigma
from reference import max_over, relu, windows
from tiny import Run
from torch import Tensor, nn
from torch.func import grad, vmap

from captum_pullback import soften
from captum_pullback.engine._torch import mode_depth
from captum_pullback.engine.errors import SofteningError

T = 0.7
every_way = pytest.mark.parametrize("way", WAYS)

WEIGHT = torch.tensor([[0.6, -0.8, 0.3, 1.1], [-0.4, 0.9, 0.7, -0.2]], dtype=torch.float64)
KERNEL = torch.tensor([[[0.5, -1.2]], [[-0.7, 0.4]]], dtype=torch.float64)
SLOPE = torch.tensor([0.25], dtype=torch.float64)


def soft(z: Tensor) -> Tensor:
    return relu(z, T)


def pooled(x: Tensor) -> Tensor:
    return max_over(x, windows([x.shape[-1]], [2], [2], [0], [1], [x.shape[-1] // 2]), T)


def convolved(x: Tensor) -> Tensor:
    """A convolution with KERNEL, as products of shifted inputs."""
    return torch.stack([x[:, :-1] * k[0, 0] + x[:, 1:] * k[0, 1] for k in KERNEL], 1)


# name: (a function with vmap, the same without it, in the reference's operations)
VMAPPED: dict[str, tuple[Function, Function]] = {
    "a module": (lambda x: vmap(nn.ReLU())(x), soft),
    "a module in place": (lambda x: vmap(nn.ReLU(inplace=True))(x * 1), soft),
    "a function": (lambda x: vmap(F.relu)(x), soft),
    "a method": (lambda x: vmap(lambda z: z.relu())(x), soft),
    "a method in place": (lambda x: vmap(lambda z: (z * 1).relu_())(x), soft),
    "clamp": (lambda x: vmap(lambda z: z.clamp(min=0))(x), soft),
    "relu6": (lambda x: vmap(F.relu6)(8 * x), lambda x: soft(8 * x) - soft(8 * x - 6)),
    "leaky_relu": (
        lambda x: vmap(lambda z: F.leaky_relu(z, 0.1))(x), lambda x: 0.1 * x + 0.9 * soft(x)
    ),
    "prelu": (
        lambda x: vmap(lambda z: F.prelu(z[None], SLOPE)[0])(x),
        lambda x: 0.25 * x + 0.75 * soft(x),
    ),
    "max_pool1d": (lambda x: vmap(lambda z: F.max_pool1d(z[None], 2))(x), pooled),
    "max_pool2d": (lambda x: vmap(lambda z: F.max_pool2d(z[None, None], (1, 2)))(x), pooled),
    "adaptive pool": (lambda x: vmap(lambda z: F.adaptive_max_pool1d(z[None], 2))(x), pooled),
    "a gate in place behind a pool": (
        lambda x: vmap(lambda z: F.max_pool1d(z[None], 2).relu_())(x), lambda x: soft(pooled(x))
    ),
    "twice": (
        lambda x: vmap(lambda z: F.relu(F.relu(z) - 0.2))(x), lambda x: soft(soft(x) - 0.2)
    ),
    "vmap in vmap": (lambda x: vmap(vmap(F.relu))(x), soft),
    "along the features": (lambda x: vmap(F.relu, in_dims=1, out_dims=1)(x), soft),
    "in chunks": (lambda x: vmap(F.relu, chunk_size=2)(x), soft),
    "a linear layer": (
        lambda x: vmap(lambda z: F.relu(F.linear(z, WEIGHT)))(x), lambda x: soft(x @ WEIGHT.T)
    ),
    "a convolution": (
        lambda x: vmap(lambda z: F.relu(F.conv1d(z[None, None], KERNEL))[0])(x),
        lambda x: soft(convolved(x)),
    ),
    "over weights": (
        lambda x: vmap(lambda w: F.relu(x @ w), out_dims=1)(WEIGHT),
        lambda x: torch.stack([soft(x @ w) for w in WEIGHT], 1),
    ),
    "over numbers, of a tensor from outside": (
        lambda x: vmap(lambda k: F.relu(2 * x) * k, out_dims=1)(torch.arange(1.0, 4.0)),
        lambda x: soft(2 * x) * 6,
    ),
    "beside a gate outside": (lambda x: vmap(F.relu)(x) + F.relu(x), lambda x: 2 * soft(x)),
    "below a gate outside": (
        lambda x: F.relu(vmap(F.relu)(x) - 0.2), lambda x: soft(soft(x) - 0.2)
    ),
}  # fmt: skip


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 4, dtype=torch.float64)


@every_way
@pytest.mark.parametrize("name", VMAPPED)
def test_gates_inside_vmap_are_soft(name: str, way: str, x: Tensor) -> None:
    mapped, written_out = VMAPPED[name]
    found = WAYS[way](mapped, x, T)
    torch.testing.assert_close(found, by_reference(written_out, x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", VMAPPED)
def test_the_forward_pass_is_bit_identical_with_vmap(name: str, x: Tensor) -> None:
    mapped, _ = VMAPPED[name]
    outside = mapped(x)
    leaf = x.clone().requires_grad_()
    with soften(nn.Identity(), T):
        inside = mapped(leaf)
        inside.sum().backward()
    assert torch.equal(inside, outside)


def test_the_record_names_the_gate_inside_vmap(x: Tensor) -> None:
    model = nn.ModuleDict({"gate": nn.ReLU()})
    leaf = x.clone().requires_grad_()
    with soften(model, {"gate": T, "": 0}) as record:
        vmap(model["gate"])(leaf).sum().backward()
    assert [(m.module, m.operation, m.temperature) for m in record.softened] == [
        ("gate", "relu", "0.7")
    ]
    torch.testing.assert_close(leaf.grad, sigma(x, T))


def test_a_temperature_for_each_feature_inside_vmap(x: Tensor) -> None:
    temperatures = torch.tensor([0.2, 0.5, 1.0, 3.0], dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    with soften(nn.Identity(), {"": temperatures}):
        vmap(F.relu)(leaf).sum().backward()
    torch.testing.assert_close(leaf.grad, 1 / (1 + torch.exp(-x / temperatures)))


def energy(z: Tensor) -> Tensor:
    return F.relu(z).pow(2).sum()


def forward_ad(x: Tensor) -> Tensor:
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x[0], x[1])
        return torch.autograd.forward_ad.unpack_dual(F.relu(dual)).tangent


FORWARD: dict[str, Callable[[Tensor], Any]] = {
    "hessian": lambda x: torch.func.hessian(energy)(x[0]),
    "jacfwd": lambda x: torch.func.jacfwd(F.relu)(x[0]),
    "jvp": lambda x: torch.func.jvp(F.relu, (x[0],), (x[1],)),
    "jvp of torch.relu": lambda x: torch.func.jvp(torch.relu, (x[0],), (x[1],)),
    "linearize": lambda x: torch.func.linearize(F.relu, x[0])[1](x[1]),
    "vmap(jvp)": lambda x: vmap(lambda z: torch.func.jvp(F.relu, (z,), (z,))[1])(x),
    "forward_ad": forward_ad,
}


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:FutureWarning")  # PyTorch's own
@pytest.mark.parametrize("name", FORWARD)
def test_forward_mode_is_refused_by_name(name: str, x: Tensor) -> None:
    """They would be plain derivatives: a soft gate is soft in the backward pass."""
    with pytest.raises(SofteningError, match="forward-mode"), soften(torch.relu, T):
        FORWARD[name](x)
    assert mode_depth() == 0


def slope(x: Tensor) -> Tensor:
    """Of the energy, by EXCITATION: its square keeps the derivative."""
    return 2 * x.clamp(min=0) * sigma(x, T)


def shares(x: Tensor) -> Tensor:
    return torch.softmax(x.unflatten(1, (2, 2)) / T, -1).flatten(1)


# name: (gradients of each example, what they are)
MAPPED: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "grad": (lambda x: vmap(grad(energy))(x), slope),
    "grad of a pool": (
        lambda x: vmap(grad(lambda z: F.max_pool1d(z[None], 2).sum()))(x), shares
    ),
    "grad in place": (
        lambda x: vmap(grad(lambda z: (z * 1).relu_().sum()))(x), lambda x: sigma(x, T)
    ),
    "grad beside a gate": (
        lambda x: F.relu(x) + vmap(grad(energy))(x), lambda x: x.clamp(min=0) + slope(x)
    ),
    "jacrev": (
        lambda x: vmap(torch.func.jacrev(F.relu))(x), lambda x: torch.diag_embed(sigma(x, T))
    ),
    "vjp": (
        lambda x: vmap(lambda z: torch.func.vjp(F.relu, z)[1](z)[0])(x),
        lambda x: x * sigma(x, T),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MAPPED)
def test_gradients_inside_vmap_are_soft(name: str, x: Tensor) -> None:
    mapped, written_out = MAPPED[name]
    with soften(nn.Identity(), T, **EXCITATION_ONLY):
        found = mapped(x)
    torch.testing.assert_close(found, written_out(x))


# Gradients that a network takes itself, which are 2 relu(x).
OWN: dict[str, Function] = {
    "vmap(grad)": vmap(grad(energy)),
    "grad": grad(energy),
    "vmap(jacrev)": vmap(torch.func.jacrev(energy)),
}


@every_way
@pytest.mark.parametrize("how", OWN)
def test_gradients_of_the_networks_own_leave_its_forward_pass(
    how: str, way: str, x: Tensor
) -> None:
    """The gate in the gradient's own gradient is a constant: its derivative is softened once."""
    model, leaf = Run(lambda x: F.relu(x) + OWN[how](x)), x.clone().requires_grad_()
    outside = model(x)
    with soften(model, T, **EXCITATION_ONLY):
        inside = model(leaf)
        inside.sum().backward()
    assert torch.equal(inside, outside)
    found = WAYS[way](model, x, T)
    torch.testing.assert_close(found, leaf.grad)
    # d(2 relu(x) 1[x > 0]) by the product's rule, with the open gate held.
    torch.testing.assert_close(found, sigma(x, T) + 2 * sigma(x, T) * (x > 0))


REVERSE: dict[str, Callable[[Tensor], Tensor]] = {
    "grad": lambda x: grad(lambda z: F.relu(z).sum())(x),
    "vjp": lambda x: torch.func.vjp(F.relu, x)[1](torch.ones_like(x))[0],
    "jacrev": lambda x: torch.func.jacrev(F.relu)(x.flatten()).diagonal().reshape(x.shape),
    "autograd.functional": lambda x: torch.autograd.functional.vjp(
        F.relu, x, torch.ones_like(x)
    )[1],
}  # fmt: skip


@pytest.mark.parametrize("name", REVERSE)
def test_reverse_mode_transforms_stay_soft(name: str, x: Tensor) -> None:
    with soften(nn.Identity(), T):
        found = REVERSE[name](x)
    torch.testing.assert_close(found, sigma(x, T))
