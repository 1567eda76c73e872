"""A temperature in units of each gate's inputs: for each example, whatever way a network runs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from handmade import Handmade
from marks import dynamo_warns
from reference import gradient, relative_error
from spreads import HARD, SOFT, C, close, deviation, of_each
from test_models import Parallel
from threads import at_once
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from captum_pullback import ExcitationPullback, Spread, soften
from captum_pullback.engine.calls.held import Context
from captum_pullback.engine.spread import UNITS, Temperature

SPREAD = Spread(C)

TARGET = [0, 2, 1]


class Net(nn.Module):
    """Every kind of gate that a temperature softens, but for attention."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3)
        self.head, self.last = nn.Linear(16, 6), nn.Linear(6, 3)
        self.layer1 = nn.Module()
        self.layer1.mid = nn.Linear(6, 6)
        self.double()

    def forward(self, x: Tensor, gates: dict[str, Any] = HARD) -> Tensor:
        x = gates["pool"](gates["relu"](self.one(x)))
        x = gates["leaky"](self.two(x)).flatten(1)
        return self.last(gates["silu"](self.layer1.mid(gates["gelu"](self.head(x)))))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(1)
    return Net()


@pytest.fixture
def x() -> Tensor:
    """Three pictures of which each has a spread of its own."""
    scales = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64).view(3, 1, 1, 1)
    return torch.randn(3, 2, 8, 8, dtype=torch.float64) * scales


def by_hand(net: Net, x: Tensor, **temperatures: float | Spread) -> Tensor:
    x = x.detach().double().requires_grad_()
    gates = {name: of_each(SOFT[name], temperatures.get(name, Spread(C))) for name in SOFT}
    score = net(x, gates)
    torch.testing.assert_close(score, net(x))
    return gradient(score[range(len(x)), TARGET[: len(x)]].sum(), x)


def pulled(net: Callable[[Tensor], Tensor], x: Tensor, temperature: Any = SPREAD) -> Tensor:
    return ExcitationPullback(net, temperature).attribute(x, TARGET[: len(x)])


def in_a_block(net: Callable[[Tensor], Tensor], x: Tensor, temperature: Any = SPREAD) -> Tensor:
    x = x.detach().requires_grad_()
    with soften(net, temperature):
        return gradient(net(x)[range(len(x)), TARGET[: len(x)]].sum(), x)


# --- closed forms -------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [pulled, in_a_block])
@pytest.mark.parametrize("scale", [0.05, 0.8, 3.0])
@pytest.mark.parametrize("unit", UNITS)
def test_each_gate_is_softened_in_units_of_each_example(
    net: Net, x: Tensor, scale: float, unit: Any, way: Any
) -> None:
    expected = by_hand(net, x, **dict.fromkeys(SOFT, Spread(scale, unit)))
    close(way(net, x, Spread(scale, unit)), expected)


@pytest.mark.parametrize("way", [pulled, in_a_block])
@pytest.mark.parametrize("unit", UNITS)
def test_a_batch_is_its_examples_one_by_one(net: Net, x: Tensor, unit: Any, way: Any) -> None:
    given = Spread(C, unit)
    alone = [ExcitationPullback(net, given).attribute(x[n : n + 1], TARGET[n]) for n in (0, 1, 2)]
    close(way(net, x, given), torch.cat(alone))
    # And it is no batch of one spread.
    pooled = {"": C * deviation(x)}
    assert relative_error(pulled(net, x, pooled), torch.cat(alone)) > 0.01


@pytest.mark.parametrize("way", [pulled, in_a_block])
def test_spreads_and_numbers_go_together(net: Net, x: Tensor, way: Any) -> None:
    mixed = {"": Spread(1), "layer1": 0.3, "gelu": Spread(0.5), "max_pool": 0.3}

    class Named(Net):
        """The silu is the layer's own."""

        def __init__(self) -> None:
            super().__init__()
            self.layer1 = nn.Sequential(nn.Linear(6, 6), nn.SiLU()).double()

        def forward(self, x: Tensor, gates: dict[str, Any] = HARD) -> Tensor:
            x = gates["pool"](gates["relu"](self.one(x)))
            x = gates["gelu"](self.head(gates["leaky"](self.two(x)).flatten(1)))
            return self.last(self.layer1(x) if gates is HARD else gates["silu"](self.layer1[0](x)))

    net = Named()
    expected = by_hand(
        net, x, relu=Spread(1), leaky=Spread(1), pool=0.3, gelu=Spread(0.5), silu=0.3
    )
    close(way(net, x, mixed), expected)


@pytest.mark.parametrize("given", [Spread(0.4), {"": Spread(0.4)}, {"max_pool": Spread(0.4)}])
def test_a_pool_temperature_in_units_of_the_pools_input(net: Net, x: Tensor, given: Any) -> None:
    found = ExcitationPullback(net, 0.3, pool_temperature=given).attribute(x, TARGET)
    numbers = dict.fromkeys(SOFT, 0.3) | {"pool": Spread(0.4)}
    close(found, by_hand(net, x, **numbers))


@pytest.mark.parametrize("differentiated", [False, True])
def test_pools_one_by_one_and_all_at_once_agree(differentiated: bool, x: Tensor) -> None:
    rules = {"max_pool": "differentiated" if differentiated else "held"}
    z = x.detach().requires_grad_()
    with soften(nn.Identity(), Spread(C), rules=rules):
        found = gradient((F.max_pool2d(z, 3, 2, 1) ** 2).sum(), z)
    for n, part in enumerate(z.detach().split(1)):
        leaf = part.requires_grad_()
        with soften(nn.Identity(), C * deviation(part), rules=rules):
            close(found[n : n + 1], gradient((F.max_pool2d(leaf, 3, 2, 1) ** 2).sum(), leaf))


def test_infinite_multiples_average_the_gates_out(net: Net, x: Tensor) -> None:
    close(pulled(net, x, Spread(math.inf)), pulled(net, x, math.inf))


def test_both_units_are_the_same_for_a_centred_normal_input() -> None:
    quantiles = torch.special.ndtri((torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000)
    z = (3 * quantiles).expand(1, -1)
    spread, output = Spread(0.5).of(z), Spread(0.5, "output").of(z)
    assert spread == pytest.approx(1.5, rel=1e-3)
    assert output == pytest.approx(spread, rel=1e-3)


def test_few_open_gates_make_a_low_temperature() -> None:
    """One of a hundred is open; the spread is the same wherever 0 lies."""
    z = torch.full((1, 100), -1.0, dtype=torch.float64)
    z[0, 0] = 1.0
    assert Spread(1, "output").of(z) == pytest.approx(math.sqrt(2 * math.pi) / 100)
    assert Spread(1).of(z) == pytest.approx(deviation(z)) == pytest.approx(0.198997, rel=1e-5)


# --- other ways to run --------------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS)
def test_under_autocast(net: Net, x: Tensor, unit: Any) -> None:
    net, small, given = net.float(), x.float(), Spread(C, unit)
    with torch.autocast("cpu", torch.bfloat16):
        found = pulled(net, small, given)
    close(found, by_hand(net.double(), small, **dict.fromkeys(SOFT, given)), 0.05)


@pytest.mark.slow
@dynamo_warns
@pytest.mark.parametrize(("rows", "unit"), [(1, "spread"), (3, "spread"), (3, "output")])
def test_compiled(net: Net, x: Tensor, rows: int, unit: Any) -> None:
    torch.compiler.reset()
    compiled, given = torch.compile(net, backend="aot_eager"), Spread(C, unit)
    expected = by_hand(net, x[:rows], **dict.fromkeys(SOFT, given))
    close(pulled(compiled, x[:rows], given), expected)
    with soften(compiled, given) as record:
        gradient(compiled(x.requires_grad_()).sum(), x)
    assert "(compiled)" in {met.module for met in record.softened}
    assert {met.temperature.split(" (")[0] for met in record.softened} == {f"0.8 {unit}"}


@pytest.mark.parametrize(("rows", "unit"), [(1, "spread"), (3, "spread"), (3, "output")])
def test_exported(net: Net, x: Tensor, rows: int, unit: Any) -> None:
    program, given = torch.export.export(net, (x[:rows],)).module(), Spread(C, unit)
    expected = by_hand(net, x[:rows], **dict.fromkeys(SOFT, given))
    close(pulled(program, x[:rows], given), expected)


def test_in_float32_and_channels_last(net: Net, x: Tensor) -> None:
    expected = by_hand(net, x)
    last = net.float().to(memory_format=torch.channels_last)
    close(pulled(last, x.float().contiguous(memory_format=torch.channels_last)), expected, 1e-5)


def test_threads_of_dataparallel_see_their_own_examples(net: Net) -> None:
    """Halves of four: two rows each, as four examples might be folded."""
    x = torch.randn(4, 2, 8, 8, dtype=torch.float64) * torch.tensor([1, 3, 9, 27]).view(4, 1, 1, 1)

    def two_rows_each(folded: Any, x: Tensor) -> Tensor:
        rows = F.relu(folded.inner.one(x).unflatten(1, (2, 2)).flatten(0, 1))
        return rows.reshape(len(x), -1)[:, :3] + folded.inner(x)

    folded = Handmade(two_rows_each, inner=net)
    method = ExcitationPullback(folded, Spread(C))
    expected = torch.cat([method.attribute(part, 1) for part in x.split(1)])
    close(method.attribute(x, 1), expected)
    close(ExcitationPullback(Parallel(folded), Spread(C)).attribute(x, 1), expected)


def test_threads_at_once(net: Net, x: Tensor) -> None:
    expected = {c: by_hand(net, x, **dict.fromkeys(SOFT, Spread(c))) for c in (0.2, 0.7, 1.5)}
    errors: dict[float, float] = {}

    def attribute(c: float) -> None:
        errors[c] = max(relative_error(pulled(net, x, Spread(c)), expected[c]) for _ in range(5))

    at_once(*(partial(attribute, c) for c in expected))
    assert errors.keys() == expected.keys()
    assert max(errors.values()) < 1e-11


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed(net: Net, x: Tensor, reentrant: bool) -> None:
    for given in (Spread(C), Spread(C, "output")):
        leaf = x.detach().requires_grad_()
        with soften(net, given):
            output = checkpoint(net, leaf, use_reentrant=reentrant)
            output[range(3), TARGET].sum().backward()
        close(leaf.grad, by_hand(net, x, **dict.fromkeys(SOFT, given)))


def test_under_vmap_and_grad_of_torch_func(net: Net, x: Tensor) -> None:
    with soften(net, Spread(C)):
        found = torch.func.grad(lambda x: net(x)[range(3), TARGET].sum())(x)
    close(found, by_hand(net, x))


def test_one_example_on_the_cpu_is_a_number(net: Net, x: Tensor, monkeypatch: Any) -> None:
    """Which kernels take as it is; a tensor costs several passes over memory."""
    seen: list[Temperature] = []
    plain = Context.temperature

    def temperature(context: Context, z: Tensor, **given: bool) -> float | Tensor:
        seen.append(plain(context, z, **given))
        return seen[-1]

    monkeypatch.setattr(Context, "temperature", temperature)
    for rows in (1, 3):
        seen.clear()
        pulled(net, x[:rows])
        assert len(seen) == 5
        assert all(isinstance(each, float) == (rows == 1) for each in seen)
    for shape in ((1, 3, 4, 4), (1, 7), (6, 1, 5), (4, 3)):
        assert isinstance(Spread(1).of(torch.randn(shape), 1), float)
    assert isinstance(Spread(1).of_logits([torch.randn(4, 5, 5)], 1), float)
    assert isinstance(Spread(1).of(torch.randn(1, 3, 4, 4)), float)


def test_it_is_a_value(net: Net, x: Tensor) -> None:
    assert Spread(1) != Spread(1, "output") == Spread(1.0, unit="output")
    assert Spread(1) == Spread(1.0) != Spread(2)
    assert copy.deepcopy(Spread(0.5)) == Spread(0.5)
    assert len({Spread(1), Spread(1.0)}) == 1
    assert torch.equal(pulled(net, x, Spread(0)), pulled(net, x, 0))
