"""Temperatures by name, per channel and per neuron; and what is refused, with nothing changed."""

from __future__ import annotations

import fractions
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from handmade import Handmade
from reference import gradient, relu
from snapshot import hooks
from tiny import Run
from torch import Tensor, nn

from captum_pullback import ExcitationPullback, soften
from captum_pullback.engine.errors import SofteningError


def chain(x: Tensor, *temperatures: float) -> Tensor:
    for temperature in temperatures:
        x = relu(x - 0.5, temperature)
    return x.sum()


def shifted() -> nn.Module:
    return Handmade(lambda net, x: net.inner(x - 0.5), inner=nn.ReLU())


def in_a_line() -> nn.Module:
    """Three gates: `first.inner`, `group.inner`, and a functional one of `group2` itself."""
    return Handmade(
        lambda net, x: net.group2(net.group(net.first(x))),
        first=shifted(), group=shifted(), group2=Run(lambda x: F.relu(x - 0.5)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mapping", "each"),
    [
        ({"": 0.3}, (0.3, 0.3, 0.3)),
        ({"": 0.3, "group": 0.7}, (0.3, 0.7, 0.3)),
        ({"": 0.3, "group": 0.7, "group.inner": 1.1}, (0.3, 1.1, 0.3)),
        ({"": 0.3, "group2": 0}, (0.3, 0.3, 0)),
        ({"first": math.inf, "group": 0.2, "group2": 2}, (math.inf, 0.2, 2)),
    ],
)
def test_the_longest_name_that_fits_counts(
    mapping: dict[str, float], each: tuple[float, ...]
) -> None:
    x = torch.linspace(0, 4, 30, dtype=torch.float64, requires_grad=True)
    model = in_a_line()
    with soften(model, mapping):
        found = gradient(model(x).sum(), x)
    torch.testing.assert_close(found, gradient(chain(x, *each), x))


def test_pools_take_their_own_temperature_or_follow() -> None:
    x = torch.randn(1, 1, 4, 4, requires_grad=True)
    model = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
    for given, shown in ((None, "0.3"), (0, "0"), (0.7, "0.7"), ({"1": 0.2}, "0.2")):
        with soften(model, 0.3, pool_temperature=given) as record:
            model(x)
        assert [met.temperature for met in record.gates] == ["0.3", shown]


def test_a_temperature_for_each_channel_and_for_each_neuron() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 6), nn.ReLU())
    model = model.double()
    channel, neuron = torch.rand(3, 1, 1).double() + 0.1, torch.rand(6).double() + 0.1
    x = torch.randn(5, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    with soften(model, {"1": channel, "4": neuron}):
        found = gradient(model(x)[:, 2].sum(), x)
    z = model[0](x)
    opened = torch.cat([relu(z[:, c : c + 1], float(channel[c])) for c in range(3)], 1)
    scores = model[3](opened.flatten(1))[:, 2]
    torch.testing.assert_close(found, gradient(relu(scores, float(neuron[2])).sum(), x))


@pytest.mark.parametrize(
    "number",
    [1, 1.0, np.float32(1), np.int64(1), fractions.Fraction(1), torch.tensor(1), torch.ones(1, 1)],
    ids=lambda number: type(number).__name__,
)
def test_any_kind_of_number_is_a_temperature(number: Any) -> None:
    x = torch.randn(4, requires_grad=True)
    with soften(nn.ReLU(), number):
        found = gradient(F.relu(x).sum(), x)
    torch.testing.assert_close(found, torch.sigmoid(x.detach()))


def test_a_parameter_is_a_temperature_without_a_warning() -> None:
    x = torch.randn(4, requires_grad=True)
    torch.set_warn_always(True)  # else it warns once per process
    try:
        with soften(nn.ReLU(), nn.Parameter(torch.tensor(0.5))):
            F.relu(x)
    finally:
        torch.set_warn_always(False)


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


WRONG_TEMPERATURES = {
    "negative": (-0.1, ValueError, "temperature is -0.1"),
    "nan": (math.nan, ValueError, "temperature is nan"),
    "minus infinity": (-math.inf, ValueError, "-inf"),
    "text": ("0.3", TypeError, "temperature must be a number .* not str"),
    "none": (None, TypeError, "not NoneType"),
    "bool": (True, TypeError, "not bool"),
    "complex": (1j, TypeError, "not complex"),
    "array": (np.ones(3), TypeError, "not ndarray"),
    "tensor": (torch.ones(4), TypeError, r"shape \(4,\).*'module name'"),
    "negative tensor": (torch.tensor(-1.0), ValueError, "negative or NaN"),
    "empty": ({}, ValueError, "empty mapping"),
    "key": ({1: 0.3}, TypeError, "keyed by module names, not by 1"),
    "unknown name": ({"": 1, "conv9": 0.3}, ValueError, "'conv9', but the model has no.*0, 1, 2"),
    "half a name": ({"": 1, "1.": 0.3}, ValueError, "no module of this name"),
    "negative entry": ({"1": torch.tensor([1.0, -1])}, ValueError, r"\['1'\].* negative or NaN"),
    "nan entry": ({"1": torch.tensor([1.0, math.nan])}, ValueError, "negative or NaN"),
    "bool entry": ({"1": torch.tensor([True])}, TypeError, "real numbers, not torch.bool"),
    "text entry": ({"1": "warm"}, TypeError, r"temperature\['1'\].*str"),
}


@pytest.mark.parametrize("case", WRONG_TEMPERATURES)
@pytest.mark.parametrize("argument", ["temperature", "pool_temperature"])
@pytest.mark.parametrize("where", [soften, ExcitationPullback])
def test_a_wrong_temperature_is_refused_before_anything_runs(
    case: str, argument: str, where: Any
) -> None:
    value, error, message = WRONG_TEMPERATURES[case]
    if argument == "pool_temperature":
        if value is None:
            return
        message = re.sub("^temperature", argument, message)

    def attempt() -> None:
        made = where(model(), **{argument: value})
        if where is soften:
            with made:
                pytest.fail("the block was entered")

    with pytest.raises(error, match=message):
        attempt()


SHAPES = [(5,), (3, 4), (2, 1, 4), (1, 2, 4)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_tensor_of_the_wrong_shape_is_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    network = model()
    pullback = ExcitationPullback(network, {"": 1, "1": torch.ones(shape)})
    expected = rf"{re.escape(str(shape))} for '1'.*relu, \(2, 4\)"
    with pytest.raises(ValueError, match=expected):
        pullback.attribute(torch.randn(2, 3), 0)
    assert hooks(network) == []


def test_a_gate_that_no_entry_names_is_refused_by_name() -> None:
    two = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.ReLU())
    with pytest.raises(ValueError, match=r"no entry for the gates in '2'.*''"):
        ExcitationPullback(two, {"1": 0.3}).attribute(torch.randn(1, 3), 0)


def test_names_for_a_callable_without_modules_are_refused() -> None:
    network = model()
    with pytest.raises(ValueError, match=r"plain callable.*pass the torch.nn.Module"):
        ExcitationPullback(lambda x: network(x), {"1": 0.3})


def test_a_name_may_be_that_of_a_module_without_gates() -> None:
    with (
        pytest.warns(UserWarning, match=r"no gate ran under temperature\['0'\]"),
        soften(model(), {"": 0.3, "0": 0.7}) as record,
    ):
        F.relu(torch.ones(1, requires_grad=True))
    assert record.softened[0].temperature == "0.3"


def test_an_unfit_tensor_in_one_block_leaves_the_next_alone() -> None:
    network, x = model(), torch.randn(2, 3)
    expected = ExcitationPullback(network, 0.3).attribute(x, 0)
    with pytest.raises(ValueError, match="broadcast"):
        ExcitationPullback(network, {"1": torch.ones(9)}).attribute(x, 0)
    assert torch.equal(ExcitationPullback(network, 0.3).attribute(x, 0), expected)


def test_softening_errors_are_runtime_errors() -> None:
    assert issubclass(SofteningError, RuntimeError)
