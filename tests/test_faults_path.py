"""A gate counts when its backward pass ran on the way to what is attributed to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum.attr import Saliency
from marks import every_way_to_take_a_gradient
from pulls import EXCITATION_ONLY, WAYS, sigma
from reference import gradient
from tiny import Run
from torch import Tensor, nn
from torchvision.models.swin_transformer import (
    PatchMergingV2,
    SwinTransformer,
    SwinTransformerBlockV2,
)

from captum_pullback import (
    ExcitationPullback,
    LayerExcitationPullback,
    NeuronExcitationPullback,
    soften,
)
from captum_pullback.engine._torch import mode_depth
from captum_pullback.engine.errors import SofteningError

T = 0.6
WEIGHT = torch.tensor(
    [[0.6, -0.8, 0.3, 1.1], [-0.4, 0.9, 0.7, -0.2], [0.5, 0.1, -0.6, 0.8]], dtype=torch.float64
)
PARAMETER = nn.Parameter(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64))
every_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 4, dtype=torch.float64)


def linear(x: Tensor) -> Tensor:
    return F.linear(x, WEIGHT)


def position_bias(x: Tensor) -> Tensor:
    """As in Swin-V2: the gates of a small network that makes a bias from parameters alone."""
    return linear(x) + F.relu(PARAMETER * 2)


def discarded(x: Tensor) -> Tensor:
    F.relu(x)
    return linear(x)


def two_heads(x: Tensor) -> Tensor:
    actor, critic = linear(x).tanh(), F.relu(linear(x))
    return torch.cat([actor, critic], 1)[:, :3]


def detached(x: Tensor) -> Tensor:
    return linear(x) * F.relu(x.detach()).sum()


def straight_through(x: Tensor) -> Tensor:
    """The usual output with the gradient of the input: gates run, and pass nothing on."""
    return x + (F.relu(x) - x).detach()


OFF_THE_WAY: dict[str, Callable[[Tensor], Tensor]] = {
    "a gate of a parameter": lambda x: F.relu(PARAMETER) * linear(x),
    "a position bias": position_bias,
    "a gate whose output nobody uses": discarded,
    "another head": two_heads,
    "a detached input": detached,
    "straight through": straight_through,
    "a pool of a parameter": lambda x: F.max_pool1d(PARAMETER[None], 3)[0] * linear(x),
    "a gate in place of a parameter": lambda x: (PARAMETER * 1).relu_() * linear(x),
    "a gate and a nonlinearity": lambda x: F.relu(PARAMETER) * torch.sigmoid(linear(x)),
    "without gradients": lambda x: linear(x) + torch.no_grad()(F.relu)(x).sum(),
}


@every_way
@pytest.mark.parametrize("name", OFF_THE_WAY)
@pytest.mark.parametrize("temperature", [0, T])
def test_gates_that_lie_off_the_way_do_not_count(
    temperature: float, name: str, way: str, x: Tensor
) -> None:
    with pytest.raises(SofteningError, match="nothing was softened"):
        WAYS[way](OFF_THE_WAY[name], x, temperature)
    assert mode_depth() == 0


@every_way_to_take_a_gradient
def test_every_way_to_take_a_gradient_says_so(take: Any, x: Tensor) -> None:
    leaf = x.clone().requires_grad_()

    def run() -> None:
        with soften(nn.Identity(), T, **EXCITATION_ONLY):
            take(two_heads(leaf).sum(), leaf)
            pytest.fail("the error comes with the gradient, not at the end of the block")

    with pytest.raises(SofteningError, match="nothing was softened"):
        run()


def test_a_gradient_that_meets_a_gate_does_not_vouch_for_the_next(x: Tensor) -> None:
    leaf = x.clone().requires_grad_()
    with soften(nn.Identity(), T):
        torch.testing.assert_close(gradient(F.relu(leaf).sum(), leaf), sigma(x, T))
        y = linear(leaf).sum()
        with pytest.raises(SofteningError, match="nothing was softened"):
            torch.autograd.grad(y, leaf)


def test_several_targets_of_which_one_meets_no_gate(x: Tensor) -> None:
    def heads(x: Tensor) -> Tensor:
        return torch.stack([F.relu(x).sum(1), x.sum(1)], 1)

    pullback = ExcitationPullback(heads, T)
    torch.testing.assert_close(pullback.attribute(x, 0), sigma(x, T))
    with pytest.raises(SofteningError, match="nothing was softened"):
        pullback.attribute_targets(x, [0, 1])


def test_swin_v2_is_not_a_plain_gradient_without_a_word() -> None:
    """All its ReLUs are in the networks that make its position biases."""
    torch.manual_seed(0)
    model = SwinTransformer(
        patch_size=[4, 4], embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=[4, 4],
        num_classes=3, block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2,
    ).eval()  # fmt: skip
    x = torch.randn(1, 3, 32, 32)
    plain = Saliency(model).attribute(x.clone().requires_grad_(), 1, abs=False)
    try:
        found = ExcitationPullback(model, T).attribute(x, 1)
    except SofteningError:
        return
    # Where rules for its other nonlinearities hold, those are held, and the result differs.
    assert float((found - plain).norm() / plain.norm()) > 1e-3


def test_gates_off_the_way_do_no_harm_to_those_on_it(x: Tensor) -> None:
    for way in WAYS.values():
        found = way(lambda x: F.relu(PARAMETER) * F.relu(linear(x)), x, T)
        z = x @ WEIGHT.T
        expected = (PARAMETER.detach().clamp(min=0) * sigma(z, T)) @ WEIGHT
        torch.testing.assert_close(found, expected)


# --- several inputs -------------------------------------------------------------------------------


def one_gated(a: Tensor, b: Tensor) -> Tensor:
    return F.relu(a).sum(1) + 3 * b.sum(1)


@pytest.mark.parametrize(
    ("forward", "count", "part"),
    [
        (one_gated, 2, 1),
        (lambda a, b: one_gated(b, a), 2, 0),
        (lambda a, b, c: F.relu(a).sum(1) * b.sum(1) + F.relu(c).sum(1), 3, 1),
        (lambda a, b, c: (F.relu(a) + torch.tanh(b) + F.relu(c)).sum(1), 3, 1),
    ],
)
def test_an_input_that_meets_no_gate_is_named(
    forward: Callable[..., Tensor], count: int, part: int, x: Tensor
) -> None:
    inputs = tuple(x + i for i in range(count))
    with pytest.raises(SofteningError, match=rf"(input|part)\D*\b{part}\b"):
        ExcitationPullback(forward, T, **EXCITATION_ONLY).attribute(inputs)
    assert mode_depth() == 0


def test_a_tuple_of_which_all_meet_gates(x: Tensor) -> None:
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return F.relu(a - b).sum(1) + F.relu(a).sum(1) + b.sum(1)

    a, b = x, torch.randn_like(x)
    found = ExcitationPullback(forward, T).attribute((a, b))
    torch.testing.assert_close(found[0], sigma(a - b, T) + sigma(a, T))
    torch.testing.assert_close(found[1], 1 - sigma(a - b, T))


def test_gradients_of_parameters_beside_the_input_are_no_reason_to_refuse(x: Tensor) -> None:
    """The weight of the last layer meets no gate on its way, and its gradient is right so."""
    head = nn.Parameter(torch.tensor([1.0, -2.0, 0.5, 1.5], dtype=torch.float64))
    leaf = x.clone().requires_grad_()
    with soften(nn.Identity(), T):
        by_x, by_head = torch.autograd.grad((F.relu(leaf) * head).sum(), (leaf, head))
    torch.testing.assert_close(by_x, sigma(x, T) * head.detach())
    torch.testing.assert_close(by_head, x.clamp(min=0).sum(0))


# --- hidden units and layers ----------------------------------------------------------------------


def stacked(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers).double().eval()


def linear_layers() -> nn.Sequential:
    stack = stacked(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3), nn.Dropout())
    nn.init.uniform_(stack[1].running_var, 0.5, 2)
    return stack


def by_matrices(stack: nn.Sequential, first: int, last: int) -> Tensor:
    """The matrix of the linear layers ``first`` to ``last`` of ``linear_layers()``."""
    one, norm, two, _ = stack
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    matrices = [one.weight, torch.diag(scale), two.weight]
    product = torch.eye(matrices[first].shape[1], dtype=torch.float64)
    for matrix in matrices[first : last + 1]:
        product = matrix @ product
    return product.detach()


@pytest.mark.parametrize("gate_above", [False, True])
def test_a_hidden_unit_with_linear_operations_below_has_its_plain_gradient(
    gate_above: bool, x: Tensor
) -> None:
    stack = linear_layers()
    model = nn.Sequential(stack, nn.ReLU()) if gate_above else stack
    for number in range(3):
        method = NeuronExcitationPullback(model, stack[number], T)
        found = method.attribute(x, 1)
        torch.testing.assert_close(found, by_matrices(stack, 0, number)[1].expand_as(x))


@pytest.mark.parametrize("gate_below", [False, True])
def test_a_layer_with_linear_operations_above_has_its_plain_gradient(
    gate_below: bool, x: Tensor
) -> None:
    stack = linear_layers()
    model = nn.Sequential(nn.ReLU(), stack) if gate_below else stack
    for number in range(2):
        method = LayerExcitationPullback(model, stack[number], T)
        found = method.attribute(x, 2)
        torch.testing.assert_close(found, by_matrices(stack, number + 1, 2)[2].expand_as(found))


def test_the_input_and_the_output_of_a_gate_as_a_layer(x: Tensor) -> None:
    stack = stacked(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    one, gate, two = stack
    z = (x @ one.weight.T + one.bias).detach()
    soft = sigma(z, T)
    layer, neuron = (
        LayerExcitationPullback(stack, gate, T),
        NeuronExcitationPullback(stack, gate, T),
    )
    row = two.weight[2].detach()
    torch.testing.assert_close(layer.attribute(x, 2), row.expand(3, 5))
    torch.testing.assert_close(
        layer.attribute(x, 2, attribute_to_layer_input=True), row * soft
    )  # fmt: skip
    torch.testing.assert_close(
        neuron.attribute(x, 1, attribute_to_neuron_input=True), one.weight[1].detach().expand_as(x)
    )
    torch.testing.assert_close(neuron.attribute(x, 1), soft[:, 1:2] * one.weight[1].detach())


# Not among ReLUs and max pools: nothing on such a way is softened or held.
HARD: dict[str, Callable[[Tensor], Tensor]] = {
    "a product with itself": lambda x: x * x,
    "a deviation": lambda x: x - x.std(1, keepdim=True),
    "abs": torch.abs,
    "exp": torch.exp,
    "sin": torch.sin,
}


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("name", HARD)
def test_hard_nonlinearities_alone_on_the_way_are_refused(name: str, gate: bool, x: Tensor) -> None:
    off, hard = nn.ReLU() if gate else nn.Identity(), Run(HARD[name])
    below = stacked(nn.Linear(4, 5), hard, nn.Linear(5, 3), off)
    with pytest.raises(SofteningError, match="nothing was softened"):
        NeuronExcitationPullback(below, below[2], T, **EXCITATION_ONLY).attribute(x, 1)
    above = stacked(off, nn.Linear(4, 5), hard, nn.Linear(5, 3))
    with pytest.raises(SofteningError, match="nothing was softened"):
        LayerExcitationPullback(above, above[1], T, **EXCITATION_ONLY).attribute(x, 1)


@pytest.mark.parametrize("method", [NeuronExcitationPullback, LayerExcitationPullback])
def test_a_gate_and_a_hard_nonlinearity_on_the_way(method: Any, x: Tensor) -> None:
    model = stacked(nn.Linear(4, 5), nn.ReLU(), Run(lambda x: x * x), nn.Linear(5, 3))
    one, _, _, two = model
    z = (x @ one.weight.T + one.bias).detach()
    factor = two.weight[1].detach() * 2 * z.clamp(min=0) * sigma(z, T)
    layer = model[3] if method is NeuronExcitationPullback else model[0]
    expected = factor @ one.weight.detach() if layer is model[3] else factor
    found = method(model, layer, T, **EXCITATION_ONLY).attribute(x, 1)
    torch.testing.assert_close(found, expected)


def test_a_network_of_linear_operations_alone_is_refused(x: Tensor) -> None:
    with pytest.raises(SofteningError, match="nothing was softened"):
        ExcitationPullback(linear_layers(), T).attribute(x, 1)
