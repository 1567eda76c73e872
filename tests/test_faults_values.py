"""Infinite inputs, temperatures of zero in other clothes, entries that hold for nothing."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from math import inf
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from handmade import Handmade
from marks import dynamo_warns
from pulls import WAYS, sigma
from reference import gradient
from tiny import Run
from torch import Tensor, nn

from captum_pullback import EXCITATION, ExcitationPullback, soften

every_way = pytest.mark.parametrize("way", WAYS)

# --- infinities -----------------------------------------------------------------------------------

Z = torch.tensor([[-inf, -2.0, 0.0, 1.0, inf]], dtype=torch.float64)
SLOPE = torch.tensor([0.25], dtype=torch.float64)
# name: (the gate, the steps of its slope: where, and how high)
GATES: dict[str, tuple[Callable[[Tensor], Tensor], list[tuple[float, float]]]] = {
    "relu": (F.relu, [(0, 1)]),
    "relu in place": (lambda z: (z * 1).relu_(), [(0, 1)]),
    "clamp": (lambda z: z.clamp(min=0), [(0, 1)]),
    "relu6": (F.relu6, [(0, 1), (6, -1)]),
    "hardtanh": (F.hardtanh, [(-1, 1), (1, -1)]),
    "leaky_relu": (lambda z: F.leaky_relu(z, 0.1), [(-inf, 0.1), (0, 0.9)]),
    "prelu": (lambda z: F.prelu(z, SLOPE), [(-inf, 0.25), (0, 0.75)]),
    "threshold": (lambda z: F.threshold(z, 0.5, 0.0), [(0.5, 1)]),
}


def slopes(steps: list[tuple[float, float]], temperature: float) -> Tensor:
    """The sum of the steps, each half open at T = inf, wherever z is."""
    total = torch.zeros_like(Z)
    for kink, height in steps:
        if kink == -inf:
            total += height
        elif temperature == inf:
            total += height / 2
        else:
            total += height * torch.sigmoid((Z - kink) / temperature)
    return total


@every_way
@pytest.mark.parametrize("temperature", [0.3, 5.0, inf])
@pytest.mark.parametrize("name", GATES)
def test_gates_of_infinite_inputs(name: str, temperature: float, way: str) -> None:
    gate, steps = GATES[name]
    found = WAYS[way](gate, Z, temperature)
    torch.testing.assert_close(found, slopes(steps, temperature), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("temperature", [0.3, inf])
def test_infinite_inputs_in_other_types(temperature: float, dtype: torch.dtype) -> None:
    found = WAYS["soften"](F.relu, Z.to(dtype), temperature)
    expected = slopes([(0, 1)], temperature).to(dtype)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)


def test_a_tensor_of_temperatures_one_of_which_is_infinite() -> None:
    z = torch.tensor([[inf, inf, -inf, -inf, 1.0]], dtype=torch.float64)
    temperatures = torch.tensor([inf, 1.0, inf, 1.0, inf], dtype=torch.float64)
    found = WAYS["soften"](F.relu, z, {"": temperatures})
    torch.testing.assert_close(found, torch.tensor([[0.5, 1, 0.5, 0, 0.5]], dtype=torch.float64))


POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "max_pool1d": lambda x: F.max_pool1d(x, 3),
    "max_pool2d": lambda x: F.max_pool2d(x[:, None], (1, 3)),
    "max_pool3d": lambda x: F.max_pool3d(x[:, None, None], (1, 1, 3)),
    "adaptive_max_pool1d": lambda x: F.adaptive_max_pool1d(x, 2),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, (1, 2)),
}


@every_way
@pytest.mark.parametrize("temperature", [0.5, inf])
@pytest.mark.parametrize("fill", [-inf, inf])
@pytest.mark.parametrize("pool", POOLS)
def test_a_window_of_infinities_is_finite_and_leaves_the_others_alone(
    pool: str, fill: float, temperature: float, way: str
) -> None:
    values = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    x = torch.cat([torch.full_like(values, fill), values])[None, None]
    found = WAYS[way](POOLS[pool], x, temperature).flatten()
    expected = torch.softmax(values / temperature, 0)
    torch.testing.assert_close(found[3:], expected, rtol=1e-9, atol=1e-12)
    # Which of equal entries passes is nobody's to say, but that one does.
    assert bool(found[:3].isfinite().all())
    torch.testing.assert_close(float(found[:3].sum()), 1.0)


@every_way
@pytest.mark.parametrize("temperature", [0.5, inf])
def test_a_masked_entry_beside_others_gets_nothing(temperature: float, way: str) -> None:
    x = torch.tensor([[[-inf, 1.0, 2.0]]], dtype=torch.float64)
    found = WAYS[way](lambda x: F.max_pool1d(x, 3), x, temperature).flatten()
    assert bool(found.isfinite().all())
    if temperature != inf:  # all entries weigh alike there
        assert float(found[0]) == 0
        torch.testing.assert_close(found[1:], torch.softmax(x[0, 0, 1:] / temperature, 0))


# --- zeros ----------------------------------------------------------------------------------------

X = torch.tensor([[-1.0, 0.5, 2.0], [0.3, -0.2, 0.1]], dtype=torch.float64)
ZEROS: dict[str, Any] = {
    "0": 0,
    "-0.0": -0.0,
    "tensor(-0.)": torch.tensor(-0.0),
    "tensor([0.])": torch.zeros(1),
    "{'': -0.0}": {"": -0.0},
    "{'': tensor(-0.)}": {"": torch.tensor(-0.0)},
    "{'': tensor([0.])}": {"": torch.zeros(1)},
    "{'': zeros(3)}": {"": torch.zeros(3)},
    "{'': -zeros(3)}": {"": -torch.zeros(3, dtype=torch.float64)},
    "{'': zeros(1, 3)}": {"": torch.zeros(1, 3)},
}


@pytest.mark.parametrize("zero", ZEROS)
def test_a_temperature_of_zero_is_recorded_as_hard(zero: str) -> None:
    leaf = X.clone().requires_grad_()
    with soften(nn.Identity(), ZEROS[zero]) as record:
        found = gradient(F.relu(leaf).sum(), leaf)
    assert torch.equal(found, (X > 0).double())
    assert record.softened == []
    assert [(met.operation, met.calls, met.temperature) for met in record.left_hard] == [
        ("relu", 1, "0")
    ]
    assert str(record).endswith(
        "0 gate calls softened, 0 gate calls held, 1 nonlinearity call left hard"
    )


@pytest.mark.parametrize("zero", [z for z in ZEROS if "3" not in z])
def test_a_pool_temperature_of_zero_is_recorded_as_hard(zero: str) -> None:
    leaf = X[:, None].clone().requires_grad_()
    with soften(nn.Identity(), 0.5, pool_temperature=ZEROS[zero]) as record:
        found = gradient(F.max_pool1d(leaf, 3).sum(), leaf)
    expected = [[[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]]]
    assert torch.equal(found, torch.tensor(expected, dtype=torch.float64))
    assert record.softened == []
    assert [(met.operation, met.temperature) for met in record.left_hard] == [("max_pool1d", "0")]


def test_a_tensor_of_which_only_some_entries_are_zero_is_soft() -> None:
    leaf = X.clone().requires_grad_()
    with soften(nn.Identity(), {"": torch.tensor([0.0, 1.0, -0.0])}) as record:
        found = gradient(F.relu(leaf).sum(), leaf)
    expected = torch.stack([(X[:, 0] > 0).double(), sigma(X[:, 1], 1.0), (X[:, 2] > 0).double()], 1)
    torch.testing.assert_close(found, expected)
    assert len(record.softened) == 1
    assert record.left_hard == []


@pytest.mark.parametrize("zero", ["-0.0", "{'': zeros(3)}"])
def test_inside_another_block_a_zero_stays_hard(zero: str) -> None:
    leaf = X.clone().requires_grad_()
    with soften(nn.Identity(), 0.5):
        F.relu(leaf)
        with soften(nn.Identity(), ZEROS[zero]):
            assert torch.equal(gradient(F.relu(leaf).sum(), leaf), (X > 0).double())


# --- entries under which no gate ran --------------------------------------------------------------


@pytest.fixture
def model() -> nn.Module:
    """Its gate after ``one`` is a function: it belongs to the network, not to the layer."""
    return Handmade(
        lambda net, x: net.gate(net.two(F.relu(net.one(x)))),
        one=nn.Linear(3, 4), two=nn.Linear(4, 2), gate=nn.ReLU(),
    ).double()  # fmt: skip


def warned(run: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    assert all(issubclass(warning.category, UserWarning) for warning in caught)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("argument", ["temperature", "pool_temperature"])
def test_an_entry_under_which_no_gate_ran_is_named_once(model: nn.Module, argument: str) -> None:
    given: dict[str, Any] = {"temperature": 0.3, argument: {"one": 5.0, "gate": 0.7, "": 0.3}}
    if argument == "pool_temperature":
        given[argument] = {"one": 5.0, "": 0.3}

    def run() -> None:
        with soften(model, **given):
            for _ in range(3):
                leaf = X.clone().requires_grad_()
                gradient(model(leaf).sum(), leaf)

    messages = warned(run)
    assert len(messages) == 1
    assert "'one'" in messages[0]
    assert argument in messages[0]
    assert "'gate'" not in messages[0]


def test_the_attribution_warns_too(model: nn.Module) -> None:
    messages = warned(
        lambda: ExcitationPullback(model, {"one": 5.0, "": 0.3}).attribute(X, 0)
    )  # fmt: skip
    assert len(messages) == 1
    assert "'one'" in messages[0]


def test_entries_that_hold_for_gates_are_no_reason_to_warn(model: nn.Module) -> None:
    assert warned(lambda: ExcitationPullback(model, {"gate": 5.0, "": 0.3}).attribute(X, 0)) == []
    whole = nn.Sequential(model)
    assert warned(lambda: ExcitationPullback(whole, {"0": 0.3}).attribute(X, 0)) == []


def test_an_error_in_the_block_comes_alone(model: nn.Module) -> None:
    def run() -> None:
        with pytest.raises(ZeroDivisionError), soften(model, {"one": 5.0, "": 0.3}):
            raise ZeroDivisionError

    assert warned(run) == []


# --- compiled, in double precision ----------------------------------------------------------------


@dynamo_warns
@pytest.mark.parametrize("temperature", [0.3, 0.7, 1 / 3])
@pytest.mark.parametrize("gate", ["relu", "relu6", "max_pool1d"])
def test_a_compiled_model_takes_its_temperature_in_double_precision(
    gate: str, temperature: float
) -> None:
    run = {"max_pool1d": lambda x: F.max_pool1d(x[:, None], 3)[:, 0]}.get(gate, getattr(F, gate))
    torch.compiler.reset()
    compiled = torch.compile(Run(lambda x: run(x).sum(1)), backend="aot_eager")
    found = ExcitationPullback(compiled, temperature, rules=EXCITATION).attribute(X)
    torch.compiler.reset()
    if gate == "max_pool1d":
        expected = torch.softmax(X / temperature, 1)
    else:
        expected = sigma(X, temperature) - (gate == "relu6") * sigma(X - 6, temperature)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
