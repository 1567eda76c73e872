"""What a spread is of, where there is none, and what is refused."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference import gradient
from spreads import HARD, SOFT, C, close, deviation, of_each
from torch import Tensor, nn

from captum_pullback import SEMANTIC, Spread, soften

FLAT = {"zeros": 0.0, "a number": 0.7, "below": -0.1}


@pytest.mark.parametrize("value", FLAT.values(), ids=FLAT)
@pytest.mark.parametrize("name", ["relu", "leaky", "pool"])
@pytest.mark.parametrize("rows", [1, 3])
def test_no_spread_is_hard(name: str, rows: int, value: float) -> None:
    """As hard as at temperature 0, beside examples that have a spread."""
    z = torch.randn(rows, 2, 4, 4, dtype=torch.float64)
    z[0] = value
    z.requires_grad_()
    with soften(nn.Identity(), Spread(C)) as record:
        found = gradient((HARD[name](z) * 3).sum(), z)
    assert torch.equal(found[:1], gradient((HARD[name](z) * 3)[:1].sum(), z)[:1])
    if rows > 1:
        expected = gradient((of_each(SOFT[name], Spread(C))(z) * 3)[1:].sum(), z)[1:]
        close(found[1:], expected)
        (met,) = record.softened
        assert met.temperature.endswith("; no spread and so hard in 1 of 1 call)")
        assert record.left_hard == []
    else:
        assert record.softened == []
        assert [met.temperature for met in record.left_hard] == ["0 (no spread)"]
        assert "0 (no spread)\n0 gate calls softened" in str(record)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_spread_that_is_not_finite_is_hard(bad: float) -> None:
    z = torch.randn(2, 6, dtype=torch.float64)
    z[0, 0] = bad
    z.requires_grad_()
    with soften(nn.Identity(), Spread(C)) as record:
        found = gradient(F.relu(z).sum(), z)
    assert torch.equal(found[0], gradient(F.relu(z).sum(), z)[0])
    assert "hard in 1 of 1 call" in str(record)


def test_the_range_is_over_calls_and_counts_those_without_spread() -> None:
    low, high = 0.25, 1.0
    parts = [torch.tensor([[-1.0, 1.0]]) * s for s in (low, high)] + [torch.ones(1, 2)] * 2
    x = torch.zeros(1, 2, requires_grad=True)
    with soften(nn.Identity(), Spread(1)) as record:
        sum(F.relu(x + part).sum() for part in parts).backward()
    (met,) = record.softened
    assert met.temperature == "1 spread (0.25 to 1; no spread and so hard in 2 of 4 calls)"


@pytest.mark.parametrize("rows", [1, 3])
def test_what_lets_nothing_through_is_hard(rows: int) -> None:
    z = torch.randn(rows, 8, dtype=torch.float64)
    z[0] = -z[0].abs()
    z.requires_grad_()
    with soften(nn.Identity(), Spread(C, "output")) as record:
        found = gradient((F.relu(z) * 3).sum(), z)
    assert torch.equal(found[0], torch.zeros(8, dtype=torch.float64))
    met = (record.softened or record.left_hard)[0]
    assert "no output" in str(met.temperature)
    expected = of_each(SOFT["relu"], Spread(C, "output"))(z)[1:]
    if rows > 1:
        close(found[1:], gradient((expected * 3).sum(), z)[1:])


RECTIFIERS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "in place": lambda z: F.relu_(z.clone()),
    "clamp": lambda z: z.clamp(min=0),
    "threshold": lambda z: F.threshold(z, 0.0, 0.0),
    "another value below": lambda z: F.threshold(z, 0.0, 7.0),
    "no slope": lambda z: F.leaky_relu(z, 0.0),
    "shifted": lambda z: F.threshold(z, 0.5, 0.5),
}


@pytest.mark.parametrize("name", RECTIFIERS)
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_mean_output_is_that_of_the_input_less_what_is_below_0(
    name: str, rows: int, dtype: torch.dtype
) -> None:
    """Whatever the operation itself gives there."""
    z = (torch.randn(rows, 2, 5, 5) * torch.arange(1, rows + 1).view(-1, 1, 1, 1)).to(dtype)
    z.requires_grad_()
    with soften(nn.Identity(), Spread(C, "output")):
        found = gradient(RECTIFIERS[name](z).sum(), z)
    wide = z.detach().double()
    mean = wide.clamp_min(0).flatten(1).mean(1).view(-1, 1, 1, 1)
    kink = 0.5 if name == "shifted" else 0.0
    expected = torch.sigmoid((wide - kink) / (C * math.sqrt(2 * math.pi) * mean))
    close(found.double(), expected, {torch.float64: 1e-13, torch.float32: 1e-6}.get(dtype, 4e-3))


@pytest.mark.parametrize("reading", ["held", "derivative", "excited"])
@pytest.mark.parametrize("rows", [1, 3])
def test_relu6_has_the_mean_output_of_a_relu(reading: str, rows: int) -> None:
    z = torch.randn(rows, 40, dtype=torch.float64).mul_(6).requires_grad_()
    with soften(nn.Identity(), Spread(C, "output"), rules={**SEMANTIC, "relu6": reading}):
        found = gradient(F.relu6(z).sum(), z)
    z = z.detach()
    t = C * math.sqrt(2 * math.pi) * z.clamp_min(0).mean(1, keepdim=True)
    gate = torch.sigmoid(z / t)
    expected = {
        "held": gate * torch.where(z > 6, 6 / z, 1.0),
        "derivative": gate - torch.sigmoid((z - 6) / t),
        "excited": gate,
    }[reading]
    close(found, expected)


def test_rounding_is_no_spread() -> None:
    """The mean of equal numbers is another number by the last digit."""
    for value in (0.1, 1e5 + 0.1, -1 / 3):
        z = torch.full((1, 3, 31, 37), value)
        assert Spread(1).of(z) == 0.0
        assert bool((Spread(1).of(z.expand(2, 3, 31, 37)) == 0).all())
    assert Spread(1).of(torch.tensor([[1e5, 1e5 + 1]])) == 0.5


@pytest.mark.parametrize("shape", [(), (1,), (4,), (1, 1), (3, 1), (0, 3), (3, 0)])
@pytest.mark.parametrize("batch", [None, 0, 1, 3])
def test_what_has_no_two_numbers_has_no_spread(shape: tuple[int, ...], batch: int | None) -> None:
    found = Spread(1).of(torch.randn(shape), batch)
    several = (shape == (4,) and batch == 1) or (shape == (3, 1) and batch == 1)
    assert bool((torch.as_tensor(found) > 0).any()) == several


def test_of_and_of_logits_are_the_standard_deviation() -> None:
    for shape, dtype in itertools.product(
        [(2, 7), (3, 4, 5), (3, 2, 6, 6)], [torch.float64, torch.float32, torch.bfloat16]
    ):
        z = (torch.randn(shape) * 3 + 50).to(dtype)
        expected = torch.tensor([deviation(part) for part in z], dtype=torch.float64)
        for found in (
            Spread(1).of(z),
            Spread(1).of_logits(z.split(1, -2)) if len(shape) > 2 else None,
        ):
            if found is None:
                continue
            assert found.shape == (len(z), *[1] * (z.dim() - 1))
            close(found.flatten(), expected, 1e-12 if dtype == torch.float64 else 1e-4)


@pytest.mark.parametrize("scale", [True, "1", None, 1j, torch.ones(1)])
def test_what_is_no_number_is_refused(scale: Any) -> None:
    with pytest.raises(TypeError, match=r"^Spread takes a number, not \w+$"):
        Spread(scale)


@pytest.mark.parametrize("scale", [-0.1, math.nan, -math.inf])
def test_a_scale_out_of_range_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match=r"give a number from 0 \(hard gates\) to inf$"):
        Spread(scale)


@pytest.mark.parametrize("unit", ["", "z", None, "Spread"])
def test_an_unknown_unit_is_refused(unit: Any) -> None:
    with pytest.raises(ValueError, match=r"^unit must be 'spread' or 'output', not "):
        Spread(1, unit)
