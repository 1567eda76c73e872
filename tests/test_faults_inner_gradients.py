"""Networks that take gradients themselves, in their forward pass, also before their first gate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from marks import dynamo_warns
from pulls import WAYS, by_reference
from reference import relu
from tiny import Run
from torch import Tensor, nn

from captum_pullback import soften

T = 0.5
every_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 4, dtype=torch.float64)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(4, 3),
    "conv1d": lambda: nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 2)),
    "conv2d": lambda: nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 2, padding=1)),
    "conv_transpose1d": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 2)), nn.ConvTranspose1d(2, 3, 2)
    ),
    "batch_norm": lambda: nn.BatchNorm1d(4),
    "conv and batch_norm": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 2), nn.BatchNorm1d(2)
    ),
    "linear twice": lambda: nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)),
}  # fmt: skip


class Adapts(nn.Module):
    """Test-time adaptation: a step along the gradient of a loss, then the output with the result.

    With ``create_graph`` (MAML) the adapted weights depend on the input.
    """

    def __init__(
        self, layer: str, create_graph: bool, gate: Callable[[Tensor], Tensor], in_loss: bool
    ) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = LAYERS[layer]().double().eval()
        for parameter in self.layer.parameters():
            nn.init.uniform_(parameter, -1, 1)
        self.create_graph, self.gate, self.in_loss = create_graph, gate, in_loss

    def forward(self, x: Tensor) -> Tensor:
        named = dict(self.layer.named_parameters())
        h = self.layer(x)
        loss = (self.gate(h) if self.in_loss else h).pow(2).mean()
        slopes = torch.autograd.grad(
            loss, list(named.values()), create_graph=self.create_graph, retain_graph=True
        )
        adapted = {
            name: weight - 0.4 * slope
            for (name, weight), slope in zip(named.items(), slopes, strict=True)
        }
        return self.gate(torch.func.functional_call(self.layer, adapted, (x,))) + h


@every_way
@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("layer", LAYERS)
def test_test_time_adaptation_is_right(layer: str, create_graph: bool, way: str, x: Tensor) -> None:
    found = WAYS[way](Adapts(layer, create_graph, F.relu, False), x, T)
    expected = by_reference(Adapts(layer, create_graph, partial(relu, temperature=T), False), x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@every_way
@pytest.mark.parametrize("in_loss", [False, True])
@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("layer", LAYERS)
def test_test_time_adaptation_at_zero_is_the_plain_gradient(
    layer: str, create_graph: bool, in_loss: bool, way: str, x: Tensor
) -> None:
    model = Adapts(layer, create_graph, F.relu, in_loss)
    plain = by_reference(model, x)
    torch.testing.assert_close(WAYS[way](model, x, 0), plain, rtol=1e-9, atol=1e-11)


def test_adaptation_against_matrices(x: Tensor) -> None:
    """The step is along d/dW mean((x W')^2) = 2 (x W')' x / n, the adapted weights constants."""
    model = Adapts("linear", False, F.relu, False)
    w, b = model.layer.weight.detach(), model.layer.bias.detach()
    h = x @ w.T + b
    adapted_w, adapted_b = w - 0.8 * h.T @ x / h.numel(), b - 0.8 * h.sum(0) / h.numel()
    gate = 1 / (1 + torch.exp(-(x @ adapted_w.T + adapted_b) / T))
    expected = gate @ adapted_w + w.sum(0)
    for way in WAYS.values():
        torch.testing.assert_close(way(model, x, T), expected)


class CopiesItsWeights(nn.Module):
    """Takes the gradient by copies of its weights, with ``backward``, as optimizers want it."""

    def __init__(self, gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.weight, self.gate = nn.Parameter(torch.randn(3, 4, dtype=torch.float64)), gate

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.detach().clone().requires_grad_()
        F.linear(x.detach(), weight).pow(2).mean().backward()
        return self.gate(F.linear(x, (weight - 0.4 * weight.grad).detach()))


@every_way
def test_a_gradient_by_a_copy_before_the_first_gate(way: str, x: Tensor) -> None:
    expected = by_reference(CopiesItsWeights(partial(relu, temperature=T)), x)
    torch.testing.assert_close(WAYS[way](CopiesItsWeights(F.relu), x, T), expected)


@every_way
@pytest.mark.parametrize("create_graph", [False, True])
def test_a_gradient_by_the_input_before_the_first_gate(
    create_graph: bool, way: str, x: Tensor
) -> None:
    """The input times the slope of its own cube: 3 x^3."""

    def run(x: Tensor) -> Tensor:
        (slope,) = torch.autograd.grad(x.pow(3).sum(), x, create_graph=create_graph)
        return F.relu(x * slope)

    gate = 1 / (1 + torch.exp(-3 * x**3 / T))
    expected = (9 if create_graph else 3) * x**2 * gate
    torch.testing.assert_close(WAYS[way](Run(run), x, T), expected)


def branches(first: bool) -> nn.Module:
    def run(x: Tensor) -> Tensor:
        h = x if first else F.relu(x + 0.3)
        return torch.cond(h.sum() > -1e6, lambda z: F.relu(2 * z), lambda z: z.sin(), (h,))

    return Run(run)


@dynamo_warns
@every_way
@pytest.mark.parametrize("first", [True, False])
def test_a_gate_inside_cond(first: bool, way: str, x: Tensor) -> None:
    def written_out(x: Tensor) -> Tensor:
        return relu(2 * (x if first else relu(x + 0.3, T)), T)

    torch.compiler.reset()
    found = WAYS[way](branches(first), x, T)
    torch.testing.assert_close(found, by_reference(written_out, x))


@dynamo_warns
@pytest.mark.parametrize("first", [True, False])
def test_the_record_tells_of_a_gate_inside_cond(first: bool, x: Tensor) -> None:
    """In a second block too, whose branches PyTorch need not trace again."""
    torch.compiler.reset()
    for temperature in (T, 2 * T):
        leaf = x.clone().requires_grad_()
        with soften(model := branches(first), temperature) as record:
            model(leaf).sum().backward()
        met = [(each.operation, each.calls) for each in record.softened]
        assert met == [("relu", 1 if first else 2)]
        assert record.left_hard == []
        assert leaf.grad is not None
