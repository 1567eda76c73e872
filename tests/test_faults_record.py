"""The record names every hard nonlinearity on the way, whoever ran it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from marks import every_way_to_take_a_gradient
from pulls import EXCITATION_ONLY
from reference import gradient
from threads import in_a_thread
from torch import Tensor, nn

from captum_pullback import EXCITATION, SEMANTIC, soften
from captum_pullback.engine._torch import mode_depth
from captum_pullback.engine.record import SofteningRecord

X = torch.tensor([[0.9, -0.4, 0.3, 1.2], [-0.7, 0.5, 1.1, -0.2]], dtype=torch.float64)
pytestmark = pytest.mark.filterwarnings(  # PyTorch's own
    "ignore:`torch.jit:FutureWarning", "ignore:index_reduce:UserWarning"
)


def met(function: Callable[[Tensor], Tensor], rules: Any = EXCITATION) -> SofteningRecord:
    """The record of a gradient through a gate, and this function of the gate's output."""
    leaf = X.clone().requires_grad_()
    with soften(nn.Identity(), 0.5, rules=rules) as record:
        gradient(function(F.leaky_relu(leaf, 0.5)).sum(), leaf)
    assert mode_depth() == 0
    return record


def scripted_relu(x: Tensor) -> Tensor:
    @torch.jit.script
    def helper(z: torch.Tensor) -> torch.Tensor:
        return torch.relu(z)

    result: Tensor = helper(x)
    return result


ROWS = torch.tensor([0, 1])
PLACES = torch.tensor([[0, 1, 1, 0], [1, 1, 0, 0]])
ONES = torch.ones(2, 4, dtype=torch.float64)

# name: (a function, what its name in the record may contain)
UNSEEN: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "a gate in a thread": (in_a_thread(F.relu), "relu"),
    "a pool in a thread": (in_a_thread(lambda x: F.max_pool1d(x[:, None], 2)), "max_pool"),
    "a scripted helper": (scripted_relu, "relu"),
    "scatter_reduce amax": (
        lambda x: (ONES * 0).scatter_reduce(0, PLACES, x, "amax"), "scatter_reduce"
    ),
    "scatter_reduce prod": (
        lambda x: ONES.scatter_reduce(0, PLACES, x, "prod"), "scatter_reduce"
    ),
    "index_reduce": (lambda x: (ONES * 0).index_reduce(0, ROWS, x, "amax"), "index_reduce"),
    "segment_reduce": (
        lambda x: torch.segment_reduce(x, "max", lengths=torch.tensor([1, 1])), "segment_reduce"
    ),
    "embedding_bag max": (
        lambda x: F.embedding_bag(torch.tensor([[0, 1]]), x, mode="max"), "embedding_bag"
    ),
    "fmax": (lambda x: torch.fmax(x, -x), "fmax"),
    "fmin": (lambda x: torch.fmin(x, -x), "fmin"),
    "std": (lambda x: x.std(1), "std"),
    "var": (lambda x: x.var(1), "var"),
    "var_mean": (lambda x: torch.var_mean(x, 1)[0], "var"),
    "std_mean": (lambda x: torch.std_mean(x, 1)[0], "std"),
    "linalg.vector_norm": (lambda x: torch.linalg.vector_norm(x, dim=1), "norm"),
    "linalg.norm": (lambda x: torch.linalg.norm(x), "norm"),
    "linalg.matrix_norm": (lambda x: torch.linalg.matrix_norm(x), "norm"),
    "dist": (lambda x: torch.dist(x, x.flip(0)), "norm|dist"),
    "renorm": (lambda x: torch.renorm(x, 2, 0, 1.0), "renorm"),
    "x * x": (lambda x: x * x, "mul"),
    "mul_": (lambda x: (x * 1).mul_(x), "mul"),
    "x @ x": (lambda x: x @ x.T, "mm|matmul"),
    "bmm": (lambda x: torch.bmm(x[None], x.T[None]), "bmm"),
    "einsum": (lambda x: torch.einsum("ij,kj->ik", x, x), "mm|mul|einsum"),
    "addcmul": (lambda x: torch.addcmul(x, x, x), "addcmul"),
    "outer": (lambda x: torch.outer(x[0], x[1]), "mul|outer"),
    "bilinear": (lambda x: F.bilinear(x, x, torch.ones(1, 4, 4).double()), "linear|mul"),
    "lerp by itself": (lambda x: torch.lerp(x, -x, x), "lerp"),
    "1 / x": (lambda x: 1 / (x + 5), "reciprocal|div"),
    "x / y": (lambda x: x / (x.flip(1) + 5), "div"),
    "hypot": (lambda x: torch.hypot(x, x + 1), "hypot"),
    "atan2": (lambda x: torch.atan2(x, x + 3), "atan2"),
    "xlogy": (lambda x: torch.xlogy(x, x + 9), "xlogy"),
    "logcumsumexp": (lambda x: x.logcumsumexp(1), "logcumsumexp"),
    "sinc": (torch.sinc, "sinc"),
    "sinh": (torch.sinh, "sinh"),
    "erfinv": (lambda x: torch.erfinv(x / 5), "erfinv"),
    "i0": (torch.i0, "i0"),
    "expit": (torch.special.expit, "sigmoid|expit"),
    "nan_to_num": (lambda x: x.nan_to_num(), "nan_to_num"),
    "copysign": (lambda x: torch.copysign(x, x.flip(1)), "copysign"),
    "fmod": (lambda x: torch.fmod(x, 0.7), "fmod"),
    "quantile": (lambda x: x.quantile(0.3, 1), "sort|quantile|gather|lerp"),
    "det": (lambda x: torch.linalg.det(x @ x.T + torch.eye(2)), "det"),
    "inv": (lambda x: torch.linalg.inv(x @ x.T + torch.eye(2)), "inv"),
    "mse_loss": (lambda x: F.mse_loss(x, ONES), "mse"),
    "smooth_l1_loss": (lambda x: F.smooth_l1_loss(x, ONES), "smooth_l1"),
    "cross_entropy": (lambda x: F.cross_entropy(x, ROWS), "softmax|cross_entropy"),
    "RNNCell": (lambda x: nn.RNNCell(4, 2, nonlinearity="relu").double()(x), "relu|rnn"),
    "LSTMCell": (lambda x: nn.LSTMCell(4, 2).double()(x)[0], "lstm|sigmoid|tanh|mul"),
    "GRUCell": (lambda x: nn.GRUCell(4, 2).double()(x), "gru|sigmoid|tanh|mul"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNSEEN)
def test_what_nobody_saw_is_named(name: str) -> None:
    function, words = UNSEEN[name]
    record = met(function)
    assert [m.operation for m in record.softened] == ["leaky_relu"]
    assert any(re.search(words, m.operation) for m in record.left_hard), record
    assert all(m.temperature is None for m in record.left_hard)


ONCE: dict[str, Callable[[Tensor], Tensor]] = {
    # seen as they run, and in the graph again
    "sigmoid": torch.sigmoid,
    "softmax": lambda x: x.softmax(1),
    "gelu": F.gelu,
    "amax": lambda x: x.amax(1),
    "pow": lambda x: x**3,
    # in the graph only
    "std": lambda x: x.std(1),
    "fmax": lambda x: torch.fmax(x, -x),
    "x * x": lambda x: x * x,
    "relu in a thread": in_a_thread(F.relu),
}


@pytest.mark.parametrize("name", ONCE)
def test_each_is_counted_once(name: str) -> None:
    record = met(ONCE[name])
    assert sum(m.calls for m in record.left_hard) == 1
    assert str(record).endswith(
        "1 gate call softened, 0 gate calls held, 1 nonlinearity call left hard"
    )


def test_calls_add_up() -> None:
    record = met(lambda x: torch.fmax(x, -x).std(1) + in_a_thread(F.relu)(x).std(1))
    counted = {m.operation: m.calls for m in record.left_hard}
    assert counted == {"fmax": 1, "relu": 1, "std": 2}


def test_two_gradients_of_one_forward_pass_count_it_once() -> None:
    leaf = X.clone().requires_grad_()
    with soften(nn.Identity(), 0.5, **EXCITATION_ONLY) as record:
        y = F.relu(leaf).std(1)
        for row in y:
            torch.autograd.grad(row, leaf, retain_graph=True)
    assert [(m.operation, m.calls) for m in record.left_hard] == [("std", 1)]


def test_what_is_off_the_way_is_not_named() -> None:
    def forward(x: Tensor) -> Tensor:
        x.std(1)  # for a log, say
        return 2 * x

    assert met(forward).left_hard == []


@every_way_to_take_a_gradient
def test_every_way_to_take_a_gradient_reads_the_graph(take: Any) -> None:
    leaf = X.clone().requires_grad_()
    with soften(nn.Identity(), 0.5, **EXCITATION_ONLY) as record:
        take((F.relu(leaf).std(1) + in_a_thread(F.relu)(leaf).sum(1)).sum(), leaf)
    assert sorted(m.operation for m in record.left_hard) == ["relu", "std"]


MASK = torch.tensor([[True, False, True, False], [False, False, True, True]])
WEIGHT = torch.ones(3, 4, dtype=torch.float64)
LINEAR: dict[str, Callable[[Tensor], Tensor]] = {
    "masked_fill by a constant mask": lambda x: x.masked_fill(MASK, 0.0),
    "masked_fill_ by a constant mask": lambda x: (x * 1).masked_fill_(MASK, -1.0),
    "masked_fill by a mask of positions": lambda x: x.masked_fill(
        torch.arange(x.shape[1]) > 1, 0.0
    ),
    "where by a constant mask": lambda x: torch.where(MASK, x, 0.0),
    "an index": lambda x: x[:, [0, 2]],
    "a constant mask as index": lambda x: x[MASK],
    "gather": lambda x: x.gather(0, PLACES),
    "scatter_add": lambda x: (ONES * 0).scatter_add(0, PLACES, x),
    "index_add": lambda x: (ONES * 0).index_add(0, ROWS, x),
    "products with constants": lambda x: x * ONES * 3 / 2 @ WEIGHT.T,
    "a product with a parameter": lambda x: x * nn.Parameter(ONES.clone()),
    "linear": lambda x: F.linear(x, nn.Parameter(WEIGHT.clone())),
    "conv": lambda x: nn.Conv1d(1, 2, 2).double()(x[:, None]),
    "batch_norm": lambda x: nn.BatchNorm1d(4).double().eval()(x),
    "avg_pool": lambda x: F.avg_pool1d(x, 2),
    "interpolate": lambda x: F.interpolate(x[None], 9, mode="linear"),
    "sums": lambda x: x.sum(0) + x.mean() - x[0] + x.cumsum(1),
    "shapes": lambda x: torch.cat([x.T.reshape(2, 4), x.flip(1), F.pad(x, (1, 1))], 1),
    "lerp by a number": lambda x: torch.lerp(x, ONES, 0.3),
    "copies": lambda x: torch.zeros_like(x).copy_(x) + x.clone() + x.contiguous(),
    "a slice that is written": lambda x: _written(x),
    "types": lambda x: x.float().double(),
    "dropout": lambda x: nn.Dropout().eval()(x),
    "dropout of probability 0": lambda x: F.dropout(x, p=0.0),
    "alpha_dropout, which does not train by default": F.alpha_dropout,
}


def _written(x: Tensor) -> Tensor:
    h = torch.zeros(2, 6, dtype=x.dtype)
    h[:, 1:5] = x
    return h


@pytest.mark.parametrize("rules", [EXCITATION, SEMANTIC], ids=repr)
@pytest.mark.parametrize("name", LINEAR)
def test_linear_operations_are_not_named(name: str, rules: Any) -> None:
    assert met(LINEAR[name], rules).left_hard == []


CHOICES: dict[str, Callable[[Tensor], Tensor]] = {
    "masked_fill": lambda x: x.masked_fill(x < 0, 0.0),
    "masked_fill_": lambda x: (x * 1).masked_fill_(x < 0.1, 0.0),
    "masked_fill by a rank": lambda x: x.masked_fill(x < x.detach().mean(), 0.0),
    "where": lambda x: torch.where(x > 0, x, 0.0),
}


@pytest.mark.parametrize("name", CHOICES)
def test_a_mask_computed_from_the_input_is_a_choice(name: str) -> None:
    record = met(CHOICES[name])
    words = "where" if name == "where" else "masked_fill"
    assert [(words in m.operation, m.calls) for m in record.left_hard] == [(True, 1)]
