"""soften(): exact forward passes, temperatures by name, nesting, in-place semantics, the record."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference import gradient, relu
from threads import in_a_thread
from torch import Tensor, nn

from captum_pullback import EXCITATION, ExcitationPullback, soften
from captum_pullback.engine.errors import SofteningError


class Net(nn.Module):
    """Named, functional, in-place and reused gates, a residual sum and a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.pool(F.relu(x + self.block(x)))
        return self.head(self.block(x).mean((2, 3)))


@pytest.fixture
def net() -> Net:
    return Net().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 8, 8, requires_grad=True)


@pytest.mark.parametrize("temperature", [0, 0.3, math.inf])
@pytest.mark.parametrize("grad", [True, False])
def test_the_forward_pass_is_bit_identical(
    net: Net, x: Tensor, temperature: float, grad: bool
) -> None:
    with torch.set_grad_enabled(grad):
        outside = net(x)
        with soften(net, temperature):
            assert torch.equal(net(x), outside)


@pytest.mark.xfail(strict=True, reason="a function mode turns PyTorch's fused path off")
def test_a_transformers_forward_pass_is_bit_identical_without_gradients() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x = torch.randn(2, 3, 8)
    with torch.no_grad():
        outside = layer(x)
        with soften(layer):
            assert torch.equal(layer(x), outside)


def test_temperature_zero_is_the_plain_gradient_to_the_bit(net: Net, x: Tensor) -> None:
    plain = torch.autograd.grad(net(x).sum(), (x, *net.parameters()))
    with soften(net, 0):
        hard = torch.autograd.grad(net(x).sum(), (x, *net.parameters()))
    assert all(map(torch.equal, hard, plain))


def test_after_the_block_gradients_are_plain_again(net: Net, x: Tensor) -> None:
    plain = gradient(net(x).sum(), x)
    with soften(net):
        assert not torch.equal(gradient(net(x).sum(), x), plain)
    assert torch.equal(gradient(net(x).sum(), x), plain)


def test_a_forward_pass_in_the_block_is_soft_wherever_its_gradient_is_taken(x: Tensor) -> None:
    with soften(nn.ReLU(), 0.5):
        y = F.relu(x)
        inside = torch.autograd.grad(y.sum(), x, retain_graph=True)[0]
    assert torch.equal(gradient(y.sum(), x), inside)


@pytest.mark.parametrize("take", ["grad", "autograd.backward", "Tensor.backward"])
def test_every_way_to_take_a_gradient(net: Net, x: Tensor, take: str) -> None:
    with soften(net, 0.3):
        expected = gradient(net(x).sum(), x)
        y = net(x).sum()
        if take == "grad":
            (x.grad,) = torch.autograd.grad([y], [x])
        elif take == "Tensor.backward":
            y.backward(inputs=[x])
        else:
            torch.autograd.backward([y], inputs=[x])
    assert torch.equal(x.grad, expected)


# --- names and the record -----------------------------------------------------------------------


def test_names_are_those_of_the_module_that_runs_the_gate(net: Net, x: Tensor) -> None:
    with soften(net) as record:
        net(x)
    assert [(met.module, met.operation, met.calls) for met in record.softened] == [
        ("stem.2", "relu", 1),
        ("block.1", "relu", 2),
        ("", "relu", 1),
        ("pool", "max_pool2d", 1),
    ]


def test_a_shared_module_goes_by_its_first_name(x: Tensor) -> None:
    shared = nn.ReLU()
    model = nn.ModuleDict({"a": nn.Sequential(shared), "b": nn.Sequential(shared)})
    with soften(model, {"a": 0.3}) as record:
        model["b"](model["a"](x))
    assert [(met.module, met.calls) for met in record.softened] == [("a.0", 2)]


def test_the_record_prints_as_a_table(net: Net, x: Tensor) -> None:
    with soften(net, {"": 0.25, "block": 0}, rules=EXCITATION) as record:
        torch.sigmoid(net(x))
    lines = [line.split() for line in str(record).splitlines()]
    assert ["stem.2", "relu", "1", "0.25"] in lines
    assert ["block.1", "relu", "2", "0", "(hard)"] in lines
    assert ["(model)", "sigmoid", "1", "derivative", "kept"] in lines
    assert lines[-1][:1] == ["3"]


# --- nesting ------------------------------------------------------------------------------------


def test_the_innermost_of_nested_blocks_counts(net: Net, x: Tensor) -> None:
    with soften(net, 0.7):
        alone = gradient(net(x).sum(), x)
    with soften(net, 0.1) as outer:
        with soften(net, 0.7) as inner:
            assert torch.equal(gradient(net(x).sum(), x), alone)
        assert not torch.equal(gradient(net(x).sum(), x), alone)
    assert sum(met.calls for met in inner.softened) == sum(met.calls for met in outer.softened)


def test_the_innermost_counts_also_where_it_is_hard(net: Net, x: Tensor) -> None:
    plain = gradient(net(x).sum(), x)
    with soften(net, 0.7) as outer:
        with soften(net, 0):
            assert torch.equal(gradient(net(x).sum(), x), plain)
        net(x)
    assert [met.calls for met in outer.softened] == [1, 2, 1, 1]


def test_nested_blocks_keep_their_names_apart(x: Tensor) -> None:
    model = nn.Sequential(nn.ReLU())
    with soften(model, {"": 0.1, "0": 0.2}) as outer:
        with soften(model[0], 0.4) as inner:
            model(x)
        model(x)
    assert [(m.module, m.temperature) for m in inner.softened] == [("", "0.4")]
    assert [(m.module, m.temperature) for m in outer.softened] == [("0", "0.2")]


# --- in-place semantics -------------------------------------------------------------------------


def input_used_after_relu_(x: Tensor) -> Tensor:
    h = x * 2
    y = h.relu_()
    return (h * 3 + y).sum()


def on_a_view(x: Tensor) -> Tensor:
    h = x * 1
    h[:, 1:].relu_()
    return (h * torch.arange(1, 9)).sum()


def on_the_base_of_a_view(x: Tensor) -> Tensor:
    h = x * 1
    view = h[:, ::2]
    h.relu_()
    return (view**2).sum()


def on_a_transposed_slice(x: Tensor) -> Tensor:
    h = (x * 1).permute(0, 3, 1, 2)
    F.relu(h[..., 1], inplace=True)
    return (h**3).sum()


def on_a_chunk(x: Tensor) -> Tensor:
    h = x * 1
    h[:, :2].clamp_(min=0).mul_(2)
    h.add_(1)
    return (h * h).sum()


INPLACE = [
    input_used_after_relu_, on_a_view, on_the_base_of_a_view, on_a_transposed_slice, on_a_chunk
]  # fmt: skip


class _Rewritten(torch.overrides.TorchFunctionMode):
    """Runs relu_ and clamp_ as copies of the reference's ReLU into their input."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inplace = func in (F.relu, Tensor.relu_, Tensor.clamp_)
        return args[0].copy_(relu(args[0].clone(), 0.5)) if inplace else func(*args, **kwargs or {})


@pytest.mark.parametrize("function", INPLACE)
def test_in_place_semantics_are_kept(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(2, 3, 4, 8, dtype=torch.float64, requires_grad=True)
    outside = function(x)
    with soften(nn.Identity(), 0.5, rules=EXCITATION):
        inside = function(x)
        found = gradient(inside, x)
    with _Rewritten():
        expected = gradient(function(x), x)
    assert torch.equal(inside, outside)
    torch.testing.assert_close(found, expected)


def test_an_in_place_gate_returns_its_input() -> None:
    h = torch.randn(3, requires_grad=True) * 1
    with soften(nn.Identity()):
        assert h.relu_() is h
        assert F.relu(h, inplace=True) is h


def test_in_place_on_a_leaf_raises_what_it_raises_outside(x: Tensor) -> None:
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"), soften(nn.ReLU()):
        F.relu_(x)


def changes_a_gates_input(x: Tensor) -> Tensor:
    h = x * 2
    y = F.relu(h)
    h.add_(1)
    return y + h


def test_a_gates_input_that_is_changed_afterwards_is_right_or_refused_by_name(x: Tensor) -> None:
    with soften(nn.Identity(), 0.5), pytest.raises(RuntimeError, match="changed the input of a"):
        gradient(changes_a_gates_input(x).sum(), x)
    pullback = ExcitationPullback(lambda x: changes_a_gates_input(x).sum((1, 2, 3)), 0.5)
    torch.testing.assert_close(pullback.attribute(x), 2 * torch.sigmoid(x.detach() * 4) + 2)


@pytest.mark.parametrize(
    "operation", [F.relu, F.relu6, lambda x: x.clone().relu_(), lambda x: F.max_pool2d(x, 2)]
)
def test_a_batch_of_gradients_is_taken_at_once(operation: Any) -> None:
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    with soften(nn.Identity(), 0.5):
        y = operation(x).flatten()
        rows = torch.eye(len(y), dtype=x.dtype)
        each = torch.stack([torch.autograd.grad(y, x, row, retain_graph=True)[0] for row in rows])
        (together,) = torch.autograd.grad(y, x, rows, is_grads_batched=True)
    torch.testing.assert_close(together, each)


def test_threads_soften_for_themselves(net: Net, x: Tensor) -> None:
    plain = gradient(net(x).sum(), x)
    with soften(net):
        found = in_a_thread(lambda: gradient(net(x).sum(), x))()
        assert not torch.equal(gradient(net(x).sum(), x), plain)
    assert torch.equal(found, plain)


def test_without_a_gate_it_says_so(x: Tensor) -> None:
    with (
        pytest.raises(SofteningError, match=r"nothing was softened.*sigmoid"),
        soften(nn.Sigmoid(), rules=EXCITATION),
    ):
        torch.sigmoid(x)
