"""The Captum classes: against closed forms, with every kind of target, and what they refuse."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum.attr import NeuronGradient, Saliency
from handmade import Handmade
from reference import gradient, relu
from snapshot import hooks
from torch import Tensor, nn

from captum_pullback import (
    EXCITATION,
    ExcitationPullback,
    LayerExcitationPullback,
    NeuronExcitationPullback,
)
from captum_pullback.engine.errors import SofteningError


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3)
        self.gate = nn.ReLU()
        self.double()

    def forward(self, x: Tensor, other: Tensor | None = None, scale: float = 1.0) -> Tensor:
        x = self.gate(self.one(x)) if other is None else self.gate(self.one(x) + other)
        return scale * self.head(F.relu(self.two(x)))


@pytest.fixture
def model() -> TwoLayers:
    return TwoLayers()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 4, dtype=torch.float64)


T = 0.3


def sigma(z: Tensor, t: float = T) -> Tensor:
    return torch.sigmoid(z / t)


def jacobian(model: TwoLayers, x: Tensor) -> Tensor:
    """head diag(sigma2) W2 diag(sigma1) W1 of each example, as a product of matrices."""
    with torch.no_grad():
        z1 = x @ model.one.weight.T + model.one.bias
        z2 = z1.clamp(min=0) @ model.two.weight.T + model.two.bias
        first = sigma(z1)[:, :, None] * model.one.weight
        second = sigma(z2)[:, :, None] * model.two.weight
        return model.head.weight @ second @ first


TARGETS = {
    "int": (1, [1, 1, 1]),
    "list": ([0, 2, 1], [0, 2, 1]),
    "tensor": (torch.tensor([2, 0, 1]), [2, 0, 1]),
    "one tensor": (torch.tensor([2]), [2, 2, 2]),
    "scalar tensor": (torch.tensor(0), [0, 0, 0]),
    "tuple": ((1,), [1, 1, 1]),
    "tuples": ([(0,), (2,), (2,)], [0, 2, 2]),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_the_pullback_is_a_product_of_matrices(model: TwoLayers, x: Tensor, kind: str) -> None:
    target, classes = TARGETS[kind]
    found = ExcitationPullback(model, T).attribute(x, target)
    torch.testing.assert_close(found, jacobian(model, x)[range(3), classes])


def test_without_a_target_the_output_is_one_number_per_example(x: Tensor) -> None:
    head = nn.Linear(4, 1).double()
    found = ExcitationPullback(lambda x: F.relu(head(x)).squeeze(1), T).attribute(x)
    expected = sigma(head(x)) * head.weight
    torch.testing.assert_close(found, expected.detach())


def test_multiplied_by_inputs(model: TwoLayers, x: Tensor) -> None:
    pullback = ExcitationPullback(model, T, multiply_by_inputs=True)
    assert pullback.multiplies_by_inputs
    torch.testing.assert_close(pullback.attribute(x, 2), x * jacobian(model, x)[:, 2])
    assert not ExcitationPullback(model, T).multiplies_by_inputs


def test_several_inputs_and_additional_arguments(model: TwoLayers, x: Tensor) -> None:
    other = torch.randn(3, 6, dtype=torch.float64)
    leaves = x.clone().requires_grad_(), other.clone().requires_grad_()
    z = relu(model.one(leaves[0]) + leaves[1], T)
    scores = 2.5 * model.head(relu(model.two(z), T))
    expected = torch.autograd.grad(scores[:, 0].sum(), leaves)
    both = ExcitationPullback(model, T).attribute((x, other), 0, 2.5)
    assert isinstance(both, tuple)
    for found, right in zip(both, expected, strict=True):
        torch.testing.assert_close(found, right)
    one = ExcitationPullback(model, T).attribute(x, 0, (other, 2.5))
    torch.testing.assert_close(one, expected[0])
    in_tuple = ExcitationPullback(model, T).attribute((x,), 0, (other, 2.5))
    assert torch.equal(in_tuple[0], one)


@pytest.mark.parametrize("unit", [2, (2,), lambda out: out[:, 2]])
@pytest.mark.parametrize("to_input", [False, True])
def test_a_neurons_pullback(model: TwoLayers, x: Tensor, unit: Any, to_input: bool) -> None:
    pullback = NeuronExcitationPullback(model, model.gate, T)
    if callable(unit) and to_input:
        unit = lambda given: given[0][:, 2] if isinstance(given, tuple) else given[:, 2]  # noqa: E731
    found = pullback.attribute(x, unit, attribute_to_neuron_input=to_input)
    z = model.one(x)[:, 2:3].detach()
    expected = (torch.ones_like(z) if to_input else sigma(z)) * model.one.weight[2].detach()
    torch.testing.assert_close(found, expected)


def test_a_slice_sums_over_neurons(model: TwoLayers, x: Tensor) -> None:
    pullback = NeuronExcitationPullback(model, model.two, T)
    found = pullback.attribute(x, (slice(0, 5),))
    each = [pullback.attribute(x, unit) for unit in range(5)]
    torch.testing.assert_close(found, torch.stack(each).sum(0))


@pytest.mark.parametrize("to_input", [False, True])
@pytest.mark.parametrize("times", [False, True])
def test_a_layers_pullback(model: TwoLayers, x: Tensor, to_input: bool, times: bool) -> None:
    pullback = LayerExcitationPullback(model, model.gate, T, multiply_by_inputs=times)
    found = pullback.attribute(x, 1, attribute_to_layer_input=to_input)
    with torch.no_grad():
        z1 = model.one(x)
        z2 = model.two(z1.clamp(min=0))
        expected = model.head.weight[1] * sigma(z2) @ model.two.weight
        if to_input:
            expected = expected * sigma(z1) * (z1 if times else 1)
        elif times:
            expected = expected * z1.clamp(min=0)
    torch.testing.assert_close(found, expected)


def test_temperature_zero_is_captums_gradient_to_the_bit(model: TwoLayers, x: Tensor) -> None:
    leaf = x.clone().requires_grad_()
    saliency = Saliency(model).attribute(leaf, 1, abs=False)
    assert torch.equal(ExcitationPullback(model, 0).attribute(x, 1), saliency)
    neuron = NeuronGradient(model, model.two).attribute(leaf, 1)
    found = NeuronExcitationPullback(model, model.two, 0).attribute(x, 1)
    assert torch.equal(found, neuron)


FROM_INPUT: dict[str, Callable[[Tensor], Tensor]] = {
    "weights": lambda x: F.linear(F.relu(x), (x.T @ x)[:2]),
    "bias": lambda x: F.linear(F.relu(x), torch.ones(4, 4, dtype=x.dtype), x.sum(0)),
    "kernel": lambda x: F.conv2d(
        F.relu(x).view(1, 1, 3, 4), x.view(1, 1, 3, 4), padding=1
    ).flatten(1),
    "scale": lambda x: F.batch_norm(
        F.relu(x), x[0].detach(), x[1].detach() ** 2, x[2], x.sum(0)
    ),
}  # fmt: skip


@pytest.mark.parametrize("function", FROM_INPUT.values(), ids=FROM_INPUT)
def test_weights_may_depend_on_the_input(function: Callable[[Tensor], Tensor], x: Tensor) -> None:
    leaf = x.clone().requires_grad_()
    plain = gradient(function(leaf)[:, 0].sum(), leaf)
    found = ExcitationPullback(function, 0, rules=EXCITATION).attribute(x, 0)
    torch.testing.assert_close(found, plain)


def test_weights_may_be_inputs(x: Tensor) -> None:
    weight = torch.randn(1, 2, 4, dtype=torch.float64)
    network = ExcitationPullback(lambda x, w: F.relu(F.linear(F.relu(x), w[0])), 0)
    found = network.attribute((x, weight), 0)
    opened = (F.linear(F.relu(x), weight[0]) > 0)[:, :1]
    torch.testing.assert_close(found[1][0, 0], (x.clamp(min=0) * opened).sum(0))


# --- what is left as it was ---------------------------------------------------------------------


@pytest.mark.parametrize("needs", [False, True])
def test_inputs_are_left_alone_without_a_warning(model: TwoLayers, x: Tensor, needs: bool) -> None:
    x.requires_grad_(needs)
    before = x.detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ExcitationPullback(model, T).attribute(x, 0)
    assert x.requires_grad == needs
    assert x.grad is None
    assert not found.requires_grad
    assert torch.equal(x, before)


def test_a_model_that_works_in_place_leaves_inputs_alone(x: Tensor) -> None:
    before = x.clone()
    found = ExcitationPullback(lambda x: x.relu_() * 2, T).attribute(x, 1)
    assert torch.equal(x, before)
    torch.testing.assert_close(found[:, 1], 2 * sigma(x[:, 1]))


def test_no_grad_outside_does_not_matter(model: TwoLayers, x: Tensor) -> None:
    expected = ExcitationPullback(model, T).attribute(x, 0)
    with torch.no_grad():
        assert torch.equal(ExcitationPullback(model, T).attribute(x, 0), expected)
        assert not torch.is_grad_enabled()


def test_results_are_contiguous_and_of_the_inputs_type() -> None:
    x = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    for options in ({}, {"multiply_by_inputs": True}):
        found = ExcitationPullback(lambda x: F.relu(x).mean((2, 3)), **options).attribute(x, 0)
        assert found.is_contiguous()
        assert found.dtype == x.dtype


def test_a_layer_may_come_after_integers() -> None:
    """Token ids have no gradients; what an embedding layer makes of them has."""
    torch.manual_seed(0)
    model = Handmade(
        lambda net, tokens: F.relu(net.head(net.embedding(tokens).mean(1))),
        embedding=nn.Embedding(9, 4), head=nn.Linear(4, 3),
    ).double()  # fmt: skip
    tokens = torch.tensor([[1, 2, 3], [4, 4, 8]])
    found = LayerExcitationPullback(model, model.embedding, 0.4).attribute(tokens, target=1)
    z = model.head(model.embedding(tokens).mean(1))[:, 1]
    expected = torch.sigmoid(z / 0.4)[:, None] * model.head.weight[1] / 3
    torch.testing.assert_close(found, expected[:, None].expand_as(found).detach())


def test_a_wrong_neuron_is_named_as_such(model: TwoLayers, x: Tensor) -> None:
    pullback = NeuronExcitationPullback(model, model.gate, T)
    with pytest.raises(Exception, match="neuron_selector does not fit the layer's output"):
        pullback.attribute(x, 99)


def test_a_network_that_differentiates_with_torch_func(x: Tensor) -> None:
    """Gradients that it takes itself are plain, or its forward pass would be another one."""
    torch.manual_seed(0)
    linear = nn.Conv1d(1, 3, 4).double()

    def forward(x: Tensor) -> Tensor:
        value, pull = torch.func.vjp(lambda z: F.relu(linear(z[:, None])[..., 0]), x)
        return value * 2 + pull(torch.ones_like(value))[0].sum(1, keepdim=True)

    z = linear(x[:, None])[:, 1]  # of a step, whose own derivative is 0, there is no more
    expected = 2 * torch.sigmoid(z / 0.4) * linear.weight[1, 0]
    torch.testing.assert_close(ExcitationPullback(forward, 0.4).attribute(x, 1), expected.detach())


# --- what is refused ----------------------------------------------------------------------------

BAD_CALLS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "target too large": ({"target": 3}, IndexError, r"shape \(3, 3\).*index below 3"),
    "no target": ({}, AssertionError, r"target.*shape \(3, 3\).*target=None only"),
    "targets too few": ({"target": [0, 1]}, AssertionError, r"one for each of the 3 examples"),
    "target a word": ({"target": "dog"}, AssertionError, "target"),
    "target too deep": ({"target": (0, 1)}, (AssertionError, IndexError), "target"),
    "integers": ({"inputs": torch.ones(3, 4, dtype=torch.int64), "target": 0}, TypeError,
                 "floating point.*torch.int64"),
    "booleans": ({"inputs": torch.ones(3, 4).bool(), "target": 0}, TypeError, "torch.bool"),
    "a list": ({"inputs": [[1.0]], "target": 0}, TypeError, "part 0 is list"),
    "part of a tuple": ({"inputs": (torch.ones(1, 4), 3), "target": 0}, TypeError, "part 1 is int"),
    "a wrong shape": ({"inputs": torch.ones(3, 5).double(), "target": 0}, RuntimeError, "shapes"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_CALLS)
def test_a_bad_call_says_what_was_wrong_and_changes_nothing(
    model: TwoLayers, x: Tensor, case: str
) -> None:
    arguments, error, message = BAD_CALLS[case]
    state, flags = torch.get_rng_state(), [p.requires_grad for p in model.parameters()]
    with pytest.raises(error, match=f"(?s){message}"):
        ExcitationPullback(model, T).attribute(**{"inputs": x, **arguments})
    assert torch.equal(torch.get_rng_state(), state)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert not x.requires_grad
    assert hooks(model) == []
    torch.testing.assert_close(
        ExcitationPullback(model, T).attribute(x, 1), jacobian(model, x)[:, 1]
    )  # fmt: skip


def test_a_forward_function_that_returns_no_tensor_says_so(x: Tensor) -> None:
    with pytest.raises((AssertionError, TypeError), match=r"returned a tuple.*wrap it"):
        ExcitationPullback(lambda x: (F.relu(x), 1)).attribute(x, 0)


@pytest.mark.parametrize("method", [NeuronExcitationPullback, LayerExcitationPullback])
def test_a_layer_must_be_a_module_of_the_model(model: TwoLayers, method: Any) -> None:
    with pytest.raises(ValueError, match="layer ReLU is not a module of this model"):
        method(model, nn.ReLU())
    with pytest.raises(TypeError, match=r"not str.*get_submodule"):
        method(model, "gate")


def test_a_network_without_gates_is_refused(x: Tensor) -> None:
    smooth = nn.Sequential(nn.Linear(4, 3), nn.GELU()).double()
    with pytest.raises(SofteningError, match=r"nothing was softened.*gelu"):
        ExcitationPullback(smooth, rules=EXCITATION).attribute(x, 0)


def test_inference_mode_and_its_tensors_are_refused(model: TwoLayers, x: Tensor) -> None:
    with torch.inference_mode():
        made_there = torch.ones(1, 4, dtype=torch.float64)
        with pytest.raises(SofteningError, match=r"inference_mode.*no_grad"):
            ExcitationPullback(model, T).attribute(x, 0)
    with pytest.raises(TypeError, match=r"inference_mode.*clone"):
        ExcitationPullback(model, T).attribute(made_there, 0)
