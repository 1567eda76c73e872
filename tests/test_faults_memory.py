"""In-place gates, saved-tensor hooks and weights that change: right, or refused as by PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from handmade import Handmade
from marks import dynamo_warns
from pulls import WAYS, Function, by_reference, sigma
from reference import adaptive_windows, max_over, relu, windows
from tiny import Run
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks

from captum_pullback import ExcitationPullback
from captum_pullback.engine._torch import mode_depth
from captum_pullback.engine.errors import SofteningError

T = 0.5
every_way = pytest.mark.parametrize("way", WAYS)


class Box:
    """Holds a tensor, so that autograd sees no tensor and no version."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


HOOKS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "none": nullcontext,
    "as they are": lambda: saved_tensors_hooks(lambda t: t, lambda t: t),
    "boxed": lambda: saved_tensors_hooks(Box, lambda box: box.tensor),
    "copied": lambda: saved_tensors_hooks(torch.clone, lambda t: t),
    "save_on_cpu": save_on_cpu,
}
every_hook = pytest.mark.parametrize("hook", HOOKS)


class Net(nn.Module):
    """Three matrices and two gates in place; it also takes the gradient ``times`` by itself.

    The slopes that it takes are without a graph: constants, which change the output alone.
    """

    def __init__(self, hook: str, times: int) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.hook, self.times = HOOKS[hook], times
        self.layers = nn.Sequential(
            nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 6), nn.ReLU(inplace=True),
            nn.Linear(6, 1),
        ).double()  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        with self.hook():
            y = self.layers(x)
            for _ in range(self.times):
                (slope,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
                y = y + slope.pow(2).sum(1, keepdim=True)
        return y

    def by_matrices(self, x: Tensor) -> Tensor:
        one, two, three = (self.layers[i] for i in (0, 2, 4))
        z = x @ one.weight.T + one.bias
        h = z.clamp(min=0) @ two.weight.T + two.bias
        return ((three.weight * sigma(h, T)) @ two.weight * sigma(z, T)) @ one.weight


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 5, dtype=torch.float64)


@every_way
@every_hook
@pytest.mark.parametrize("times", [0, 1, 2])
def test_gates_in_place_a_gradient_inside_and_hooks(
    times: int, hook: str, way: str, x: Tensor
) -> None:
    model = Net(hook, times)
    torch.testing.assert_close(WAYS[way](model, x, T), model.by_matrices(x).detach())


@every_way
@every_hook
def test_hooks_around_the_attribution(hook: str, way: str, x: Tensor) -> None:
    model = Net("none", 1)
    with HOOKS[hook]():
        found = WAYS[way](model, x, T)
    torch.testing.assert_close(found, model.by_matrices(x).detach())


CHANGING: dict[str, tuple[Function, Callable[[Tensor], Tensor]]] = {
    "relu": (F.relu, lambda z: relu(z, T)),
    "leaky_relu": (lambda z: F.leaky_relu(z, 0.1), lambda z: 0.1 * z + 0.9 * relu(z, T)),
    "clamp": (lambda z: z.clamp(min=0), lambda z: relu(z, T)),
    "prelu": (
        lambda z: F.prelu(z, torch.tensor([0.25], dtype=z.dtype)),
        lambda z: 0.25 * z + 0.75 * relu(z, T),
    ),
    "max_pool1d": (
        lambda z: F.max_pool1d(z[:, None], 5),
        lambda z: max_over(z[:, None], windows([5], [5], [5], [0], [1], [1]), T),
    ),
}


@every_way
@every_hook
@pytest.mark.parametrize("gate", CHANGING)
def test_a_gates_input_that_changes_afterwards_is_right_or_refused(
    gate: str, hook: str, way: str, x: Tensor
) -> None:
    gated, softly = CHANGING[gate]

    def forward(x: Tensor) -> Tensor:
        with HOOKS[hook]():
            h = x * 2
            y = gated(h).sum().expand(len(x)) + 0 * x[:, 0]
            h.add_(3)
            return y + h.sum(1)

    expected = by_reference(
        lambda x: softly(2 * x).sum().expand(len(x)) + (2 * x + 3).sum(1), x
    )  # fmt: skip
    try:
        found = WAYS[way](forward, x, T)
    except RuntimeError as error:
        assert "in place" in str(error)  # noqa: PT017
        assert way == "soften"  # the attribution runs once more, on copies
    else:
        torch.testing.assert_close(found, expected)


# --- weights and statistics that change between two uses ----------------------------------------

TWICE: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], Tensor], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(4, 4), lambda m: m.weight, (2, 4)),
    "conv1d": (lambda: nn.Conv1d(2, 2, 3, padding=1), lambda m: m.weight, (2, 2, 5)),
    "conv2d": (lambda: nn.Conv2d(2, 2, 3, padding=1), lambda m: m.weight, (2, 2, 4, 4)),
    "conv3d": (lambda: nn.Conv3d(2, 2, 1), lambda m: m.weight, (2, 2, 3, 3, 3)),
    "conv_transpose2d": (
        lambda: nn.ConvTranspose2d(2, 2, 3, padding=1), lambda m: m.weight, (2, 2, 4, 4)
    ),
    "batch_norm, weight": (lambda: nn.BatchNorm1d(4), lambda m: m.weight, (3, 4)),
    "batch_norm, variance": (lambda: nn.BatchNorm1d(4), lambda m: m.running_var, (3, 4)),
    "batch_norm, mean": (lambda: nn.BatchNorm1d(4), lambda m: m.running_mean, (3, 4)),
}  # fmt: skip


def changing(name: str) -> nn.Module:
    """Uses a layer twice, and changes one of its tensors in between."""
    make, which, _ = TWICE[name]

    def run(net: Any, x: Tensor) -> Tensor:
        h = net.layer(x)
        with torch.no_grad():
            which(net.layer).mul_(2)
        return F.relu(net.layer(h))

    return Handmade(run, layer=make()).double().eval()


@every_way
@pytest.mark.parametrize("temperature", [0, T])
@pytest.mark.parametrize("name", TWICE)
def test_a_weight_changed_between_two_uses_is_refused_as_by_pytorch(
    name: str, temperature: float, way: str
) -> None:
    x = torch.randn(*TWICE[name][2], dtype=torch.float64)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        by_reference(changing(name), x)
    with pytest.raises(RuntimeError, match=r"inplace operation|in place"):
        WAYS[way](changing(name), x, temperature)
    assert mode_depth() == 0


@pytest.mark.parametrize("name", TWICE)
def test_a_weight_changed_between_two_attributions_is_followed(name: str) -> None:
    """Nothing of the first call is kept: with doubled weights the second is the closed form."""
    make, which, shape = TWICE[name]
    x, model = torch.randn(*shape, dtype=torch.float64), make().double().eval()
    pullback = ExcitationPullback(lambda x: F.relu(model(x)).flatten(1).sum(1), T)
    for _ in range(2):
        expected = by_reference(lambda x: relu(model(x), T), x)
        torch.testing.assert_close(pullback.attribute(x), expected)
        with torch.no_grad():
            which(model).mul_(2)


class FallsBack(nn.Module):
    """In training; changes the input of a gate in place, so that the gate needs a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(5).double(), nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(self.norm(x))
        y = F.relu(h)
        h.add_(1)
        return (y + h).sum(1)


def test_statistics_and_random_state_advance_once(x: Tensor) -> None:
    once, model = FallsBack(), FallsBack()
    torch.manual_seed(3)
    once(x.clone())
    state = torch.get_rng_state()
    torch.manual_seed(3)
    ExcitationPullback(model, T).attribute(x)
    assert int(model.norm.num_batches_tracked) == 1
    torch.testing.assert_close(model.norm.running_mean, 0.1 * x.mean(0))
    torch.testing.assert_close(model.norm.running_var, once.norm.running_var)
    assert torch.equal(torch.get_rng_state(), state)


def test_statistics_advance_once_where_the_call_fails(x: Tensor) -> None:
    """The network without gates is refused after one forward pass."""

    class Smooth(FallsBack):
        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x).sum(1)

    model = Smooth()
    with pytest.raises(SofteningError):
        ExcitationPullback(model, T).attribute(x)
    assert int(model.norm.num_batches_tracked) == 1


# --- pools of one dimension, and something in place behind them -----------------------------------

REGULAR, ADAPTIVE = windows([6], [2], [2], [0], [1], [3]), adaptive_windows([6], [3])
POOLS: dict[str, tuple[Function, list[list[list[int]]]]] = {
    "max_pool1d": (lambda x: F.max_pool1d(x, 2), REGULAR),
    "torch.max_pool1d": (lambda x: torch.max_pool1d(x, 2), REGULAR),
    "max_pool1d, indices": (lambda x: F.max_pool1d(x, 2, return_indices=True)[0], REGULAR),
    "nn.MaxPool1d, indices": (lambda x: nn.MaxPool1d(2, return_indices=True)(x)[0], REGULAR),
    "adaptive_max_pool1d": (lambda x: F.adaptive_max_pool1d(x, 3), ADAPTIVE),
    "nn.AdaptiveMaxPool1d": (nn.AdaptiveMaxPool1d(3), ADAPTIVE),
    "adaptive, indices": (
        lambda x: F.adaptive_max_pool1d(x, 3, return_indices=True)[0], ADAPTIVE
    ),
    "without a batch": (lambda x: F.adaptive_max_pool1d(x[0], 3)[None], ADAPTIVE),
}  # fmt: skip
BEHIND: dict[str, tuple[Function, Function]] = {
    "relu_": (lambda y: y.relu_(), lambda y: relu(y, T)),
    "F.relu in place": (lambda y: F.relu(y, inplace=True), lambda y: relu(y, T)),
    "nn.ReLU in place": (nn.ReLU(inplace=True), lambda y: relu(y, T)),
    "clamp_": (lambda y: y.clamp_(min=0), lambda y: relu(y, T)),
    "mul_": (lambda y: y.mul_(3), lambda y: 3 * y),
    "a slice": (
        lambda y: y[..., :1].relu_() * 2, lambda y: 2 * relu(y[..., :1], T)
    ),
}  # fmt: skip


@every_way
@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("pool", POOLS)
def test_pools_of_one_dimension_before_something_in_place(pool: str, behind: str, way: str) -> None:
    x = torch.randn(1 if pool == "without a batch" else 2, 3, 6, dtype=torch.float64)
    (run, axes), (change, softly) = POOLS[pool], BEHIND[behind]
    found = WAYS[way](lambda x: change(run(x * 1)), x, T)
    torch.testing.assert_close(found, by_reference(lambda x: softly(max_over(x, axes, T)), x))


@dynamo_warns
@pytest.mark.parametrize("pool", ["max_pool1d", "adaptive_max_pool1d", "nn.AdaptiveMaxPool1d"])
def test_a_compiled_pool_before_a_gate_in_place(pool: str) -> None:
    x, (run, axes) = torch.randn(2, 3, 6, dtype=torch.float64), POOLS[pool]
    gated = Run(lambda x: F.relu(run(x), inplace=True).sum((1, 2)))
    torch.compiler.reset()
    model = torch.compile(gated, backend="aot_eager")
    found = ExcitationPullback(model, T).attribute(x)
    torch.compiler.reset()
    torch.testing.assert_close(found, by_reference(lambda x: relu(max_over(x, axes, T), T), x))
