"""Lean backward passes: the same bits, less memory, and never where more is asked of a graph."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_pullback import ExcitationPullback, soften
from captum_pullback.engine.softening import soften_for_inputs
from captum_pullback.engine.softness import Softness

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 9)),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, padding=1), (2, 4, 8, 8)),
    "conv2d dilated": (lambda: nn.Conv2d(4, 6, (3, 2), (1, 2), (2, 0), 2), (2, 4, 8, 8)),
    "conv2d grouped": (lambda: nn.Conv2d(4, 8, 3, groups=4, bias=False), (2, 4, 8, 8)),
    "conv2d same": (lambda: nn.Conv2d(4, 6, 3, padding="same"), (2, 4, 8, 8)),
    "conv2d unbatched": (lambda: nn.Conv2d(4, 6, 3), (4, 8, 8)),
    "conv2d reflecting": (
        lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 8, 8),
    ),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), (2, 2, 4, 5, 6)),
    "transposed 1d": (lambda: nn.ConvTranspose1d(4, 6, 3, 2, 1, 1), (2, 4, 9)),
    "transposed 2d": (
        lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2, dilation=2), (2, 4, 8, 8),
    ),
    "transposed 3d": (lambda: nn.ConvTranspose3d(2, 3, 2, 2), (2, 2, 3, 4, 5)),
    "linear": (lambda: nn.Linear(8, 3), (2, 4, 8)),
    "batch norm": (lambda: _trained(nn.BatchNorm2d(4)), (2, 4, 8, 8)),
    "batch norm without weights": (lambda: _trained(nn.BatchNorm1d(4, affine=False)), (3, 4)),
    "batch norm by the batch": (lambda: nn.BatchNorm2d(4, track_running_stats=False), (2, 4, 8, 8)),
    "average pool": (lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True), (2, 4, 8, 8)),
    "max pool": (lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True), (2, 4, 8, 8)),
    "max pool of the same size": (lambda: nn.MaxPool2d(3, 1, 1), (2, 4, 8, 8)),
    "max pool dilated": (lambda: nn.MaxPool2d((2, 3), dilation=2), (2, 4, 8, 8)),
    "max pool 3d": (lambda: nn.MaxPool3d(2, (1, 2, 2)), (2, 2, 4, 5, 6)),
}  # fmt: skip


def _trained(norm: Any) -> nn.Module:
    for value in norm.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 2)
    return norm.eval()


def _gradient(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The output and a gradient, for weights that differ from entry to entry."""
    z = x.clone().requires_grad_()
    y = layer(z)
    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)
    return y.detach(), torch.autograd.grad((y * weights).sum(), z)[0]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels-last"])
def test_output_and_gradient_are_the_plain_ones_to_the_last_bit(
    name: str, dtype: torch.dtype, last: bool
) -> None:
    make, shape = LAYERS[name]
    layer, x = make().eval().to(dtype), torch.randn(shape, dtype=dtype)
    if last and x.dim() == 4:
        layer, x = (part.to(memory_format=torch.channels_last) for part in (layer, x))
    plain = _gradient(layer, x)
    with soften_for_inputs(layer, Softness(0.3, 0)) as mode:
        F.relu(x.clone().requires_grad_())  # a block without a gate is refused
        mode.differentiates_gradients = True  # nor is a gradient
        lean = _gradient(layer, x)
    for found, expected in zip(lean, plain, strict=True):
        assert torch.equal(found, expected)


KEEPING = ("same", "reflecting", "unbatched", "by the batch", "linear")


@pytest.mark.parametrize("name", [name for name in LAYERS if not name.endswith(KEEPING)])
def test_the_input_is_not_kept(name: str) -> None:
    make, shape = LAYERS[name]
    layer = make().eval()
    with soften_for_inputs(layer, Softness(0.3, 0)):
        x = torch.randn(shape, requires_grad=True)
        z = x * 1
        kept = weakref.ref(z.untyped_storage())
        y = layer(z)
        del z
        assert kept() is None
        F.relu(y).sum().backward()


def test_gradients_of_parameters_are_there_where_they_are_asked_for() -> None:
    layer = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    with soften(layer):
        layer(torch.randn(2, 3, 6, 6)).sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


class Squares(nn.Module):
    """Half the squared norm of its layers' input gradient, so that gradients are taken twice."""

    def __init__(self, times: int, create_graph: bool) -> None:
        super().__init__()
        self.times, self.create_graph = times, create_graph
        self.layers = nn.Sequential(
            nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)
        ).double()

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        total = y
        for _ in range(self.times):
            (slope,) = torch.autograd.grad(
                y.sum(), x, retain_graph=True, create_graph=self.create_graph
            )
            total = total + (slope**2).sum(1, keepdim=True) / 2
        return total


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("create_graph", [False, True])
def test_a_network_that_takes_gradients_itself_gets_them_right(
    times: int, create_graph: bool
) -> None:
    # Gates that work in place reuse their memory in the first gradient: a second one must notice.
    model = Squares(times, create_graph)
    x = torch.randn(4, 5, dtype=torch.float64)
    z = x.clone().requires_grad_()
    with soften(model, 0.5):
        (expected,) = torch.autograd.grad(model(z)[:, 1].sum(), z)
    torch.testing.assert_close(ExcitationPullback(model, 0.5).attribute(x, 1), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_linear_layer_of_what_is_not_contiguous_runs_the_kernel_that_it_runs_outside(
    dtype: torch.dtype,
) -> None:
    """PyTorch chooses it by whether the weight needs a gradient."""
    layer = nn.Linear(64, 48).to(dtype)
    x = torch.randn(4, 197, 64, dtype=dtype).transpose(0, 1)
    expected, plain = _gradient(layer, x)
    with soften_for_inputs(layer, Softness(0.3, 0)) as mode:
        F.relu(x.clone().requires_grad_())
        mode.differentiates_gradients = True
        found, lean = _gradient(layer, x)
    assert torch.equal(found, expected)
    torch.testing.assert_close(lean, plain)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_self_attention_goes_back_through_its_values_alone(batch_first: bool, bias: bool) -> None:
    """By hand: the weights are held, and the projection's last third is the values'."""
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(
        8, 2, bias=bias, batch_first=batch_first, dtype=torch.float64
    ).eval()
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    along = torch.randn(3, 5, 8, dtype=torch.float64)
    with soften_for_inputs(attention, Softness(0.5)) as mode:
        z = x.clone().requires_grad_()
        y = attention(z, z, z, need_weights=False)[0]
        (pulled,) = torch.autograd.grad((y * along).sum(), z)
    outside = attention(z, z, z, need_weights=False)[0]
    assert torch.equal(y, outside)
    assert [met.operation for met in mode.record.held] == ["scaled_dot_product_attention"]

    def by_head(rows: Tensor) -> Tensor:  # (N, L, 8) to (N, heads, L, 4)
        return rows.unflatten(-1, (2, 4)).transpose(1, 2)

    rows, grad = (part if batch_first else part.transpose(0, 1) for part in (x, along))
    of_query, of_key, of_value = attention.in_proj_weight.detach().chunk(3)
    shifts = attention.in_proj_bias.detach().chunk(3) if bias else (0.0, 0.0, 0.0)
    logits = by_head(rows @ of_query.T + shifts[0]) @ by_head(rows @ of_key.T + shifts[1]).mT
    weights = torch.softmax(logits / 2, -1)  # the root of 4
    back = weights.mT @ by_head(grad @ attention.out_proj.weight.detach())
    expected = back.transpose(1, 2).flatten(2) @ of_value
    expected = expected if batch_first else expected.transpose(0, 1)
    torch.testing.assert_close(pulled, expected, rtol=1e-10, atol=1e-12)
