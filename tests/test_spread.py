"""A temperature in units of each gate's inputs: for each example, whatever way a network runs."""

from __future__ import annotations

import copy
import itertools
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference import gradient, max_pool2d, relative_error, relu
from test_models import Parallel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from captum_pullback import SEMANTIC, ExcitationPullback, Spread, soften
from captum_pullback.engine.backward import Context
from captum_pullback.engine.spread import UNITS, Temperature

C = 0.8
SPREAD = Spread(C)
TARGET = [0, 2, 1]


def deviation(z: Tensor) -> float:
    """The standard deviation of one example, written out."""
    values = z.detach().double().flatten().tolist()
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))


def mean_output(z: Tensor) -> float:
    """The mean of what a ReLU lets through of one example, written out."""
    values = z.detach().double().flatten().tolist()
    return math.fsum(max(value, 0.0) for value in values) / len(values)


def at(temperature: float | Spread, z: Tensor, *, compared: bool = False) -> float:
    """The temperature of one example; of a pool, its inputs are compared with each other."""
    if not isinstance(temperature, Spread):
        return temperature
    if temperature.unit == "output" and not compared:
        return temperature.scale * math.sqrt(2 * math.pi) * mean_output(z)
    return temperature.scale * deviation(z)


def phi(z: Tensor) -> Tensor:
    return (1 + torch.erf(z / math.sqrt(2))) / 2


def of_each(
    function: Callable[[Tensor, float], Tensor], temperature: float | Spread
) -> Callable[[Tensor], Tensor]:
    """A soft operation for one example and a number, for a batch and each example's spread."""
    compared = function is SOFT["pool"]
    return lambda z: torch.cat(
        [function(part, at(temperature, part, compared=compared)) for part in z.split(1)]
    )


# The soft operations, independent of the package: forward values are what the gates give.
SOFT: dict[str, Callable[[Tensor, float], Tensor]] = {
    "relu": relu,
    "leaky": lambda z, t: 0.1 * z + 0.9 * relu(z, t),
    "pool": lambda z, t: max_pool2d(z, t, 2, 2),
    "gelu": lambda z, t: z * phi(z / math.sqrt(1 + t * t)).detach() + kept(z, F.gelu, phi, t),
    "silu": lambda z, t: (
        z * torch.sigmoid(z / math.sqrt(1 + t * t)).detach() + kept(z, F.silu, torch.sigmoid, t)
    ),
}


def kept(z: Tensor, whole: Any, gate: Any, t: float) -> Tensor:
    """What the value of an operation lacks where its gate is softened."""
    z = z.detach()
    return whole(z) - z * gate(z / math.sqrt(1 + t * t))


HARD: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky": lambda z: F.leaky_relu(z, 0.1),
    "pool": lambda z: F.max_pool2d(z, 2),
    "gelu": F.gelu,
    "silu": F.silu,
}


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


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-11) -> None:
    assert relative_error(found, expected) < tolerance


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
@pytest.mark.filterwarnings(  # Dynamo's own, the second in torch 2.8
    "ignore:The .grad attribute of a Tensor",
    "ignore:<class 'torch.autograd.function.Function'> should not be instantiated",
)
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

    class Folded(nn.Module):
        """Runs the gates on two rows for each example."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = net

        def forward(self, x: Tensor) -> Tensor:
            rows = F.relu(self.inner.one(x).unflatten(1, (2, 2)).flatten(0, 1))
            return rows.reshape(len(x), -1)[:, :3] + self.inner(x)

    expected = torch.cat(
        [ExcitationPullback(Folded(), Spread(C)).attribute(part, 1) for part in x.split(1)]
    )
    close(ExcitationPullback(Folded(), Spread(C)).attribute(x, 1), expected)
    close(ExcitationPullback(Parallel(Folded()), Spread(C)).attribute(x, 1), expected)


def test_threads_at_once(net: Net, x: Tensor) -> None:
    expected = {c: by_hand(net, x, **dict.fromkeys(SOFT, Spread(c))) for c in (0.2, 0.7, 1.5)}
    errors: dict[float, float] = {}

    def attribute(c: float) -> None:
        errors[c] = max(relative_error(pulled(net, x, Spread(c)), expected[c]) for _ in range(5))

    threads = [threading.Thread(target=attribute, args=(c,)) for c in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors.keys() == expected.keys()
    assert max(errors.values()) < 1e-11


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed(net: Net, x: Tensor, reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.inner, x, use_reentrant=reentrant)

    for given in (Spread(C), Spread(C, "output")):
        leaf = x.detach().requires_grad_()
        with soften(net, given):
            Checkpointed()(leaf)[range(3), TARGET].sum().backward()
        close(leaf.grad, by_hand(net, x, **dict.fromkeys(SOFT, given)))


def test_under_vmap_and_grad_of_torch_func(net: Net, x: Tensor) -> None:
    with soften(net, Spread(C)):
        found = torch.func.grad(lambda x: net(x)[range(3), TARGET].sum())(x)
    close(found, by_hand(net, x))


# --- layouts ------------------------------------------------------------------------------------


class SequenceFirst(nn.Module):
    """Gates on (T, N, C), of inputs that are (N, T, C) or (T, N, C)."""

    def __init__(self, inputs_too: bool) -> None:
        super().__init__()
        self.inputs_too = inputs_too
        self.one, self.two = nn.Linear(4, 5), nn.Linear(5, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.inputs_too else x.transpose(0, 1)
        return self.two(F.gelu(self.one(x))).mean(0)


@pytest.mark.parametrize("tokens", [3, 5, 8])  # 8: a multiple of the batch
@pytest.mark.parametrize("inputs_too", [False, True])
def test_sequence_first(tokens: int, inputs_too: bool) -> None:
    model = SequenceFirst(inputs_too)
    x = torch.randn(tokens, 4, 4, dtype=torch.float64) * torch.tensor([1, 2, 4, 8.0]).view(1, 4, 1)
    dim = 1 if inputs_too else 0
    x = x if inputs_too else x.transpose(0, 1)
    leaf = x.detach().requires_grad_()
    z = model.one(leaf if inputs_too else leaf.transpose(0, 1))
    soft = torch.cat([SOFT["gelu"](part, C * deviation(part)) for part in z.split(1, 1)], 1)
    expected = gradient(model.two(soft).mean(0)[:, 1].sum(), leaf)
    method = ExcitationPullback(model, Spread(C))
    close(method.attribute(x, 1), expected)
    alone = [method.attribute(part, 1) for part in x.split(1, dim)]
    close(torch.cat(alone, dim), expected)


@pytest.mark.parametrize("rows", [1, 3])
def test_rows_that_belong_to_one_example_have_one_spread(rows: int) -> None:
    """Windows folded into the batch, as in Swin: (N k, C)."""

    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(8, 2).double()

        def forward(self, x: Tensor) -> Tensor:
            windows = F.relu(x.reshape(len(x) * 4, 2))
            return self.head(windows.reshape(len(x), 8))

    model, x = Windows(), torch.randn(rows, 8, dtype=torch.float64)
    leaf = x.detach().requires_grad_()
    expected = gradient(model.head(of_each(relu, Spread(C))(leaf))[:, 0].sum(), leaf)
    close(ExcitationPullback(model, Spread(C)).attribute(x, 0), expected)


# --- attention ----------------------------------------------------------------------------------


class Attention(nn.Module):
    """One attention of two heads, in one call or written out."""

    def __init__(self, form: str, mask: Tensor | None) -> None:
        super().__init__()
        self.form, self.mask = form, mask
        self.query, self.key, self.value = (nn.Linear(6, 6) for _ in range(3))
        self.double()

    def logits(self, x: Tensor) -> Tensor:
        query, key = (self.heads(part(x)) for part in (self.query, self.key))
        logits = query @ key.mT / math.sqrt(3)
        return logits if self.mask is None else logits + self.mask

    def heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (2, 3)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        value = self.heads(self.value(x))
        if self.form == "one call":
            query, key = self.heads(self.query(x)), self.heads(self.key(x))
            output = F.scaled_dot_product_attention(query, key, value, self.mask)
        elif self.form == "written out":
            output = self.logits(x).softmax(-1) @ value
        else:  # heads folded into the batch
            weights = self.logits(x).flatten(0, 1).softmax(-1)
            output = torch.bmm(weights, value.flatten(0, 1)).unflatten(0, (len(x), 2))
        return output.transpose(1, 2).flatten(1)


def masked(kind: str) -> Tensor | None:
    if kind == "none":
        return None
    low = {"-inf": -math.inf, "least": torch.finfo(torch.float32).min, "-1e4": -1e4}[kind]
    return torch.zeros(5, 5, dtype=torch.float64).masked_fill(torch.ones(5, 5).triu(1) > 0, low)


@pytest.mark.parametrize("form", ["one call", "written out", "folded"])
@pytest.mark.parametrize("mask", ["none", "-inf", "least", "-1e4"])
def test_attentions_logits_have_one_spread_for_each_example(form: str, mask: str) -> None:
    model = Attention(form, masked(mask))
    x = torch.randn(3, 5, 6, dtype=torch.float64) * torch.tensor([1.0, 2, 3]).view(3, 1, 1)
    logits = model.logits(x).detach()
    weights = []
    for part in logits:
        counted = part[part > -5000]  # over heads, rows and columns
        weights.append((part / (C * deviation(counted))).softmax(-1))
    leaf = x.detach().requires_grad_()
    output = torch.stack(weights) @ model.heads(model.value(leaf))
    expected = gradient(output.transpose(1, 2).flatten(1)[:, 7].sum(), leaf)
    method = ExcitationPullback(model, {"": 0, "attention": Spread(C)})
    close(method.attribute(x, 7), expected)
    close(torch.cat([method.attribute(part, 7) for part in x.split(1)]), expected)


def test_attention_in_pieces_of_rows_has_one_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Attention("one call", masked("-inf"))
    x = torch.randn(3, 5, 6, dtype=torch.float64)
    method = ExcitationPullback(model, {"": 0, "attention": Spread(C)})
    expected = method.attribute(x, 7)
    monkeypatch.setattr("captum_pullback.engine.rules.attention._PIECE", 3 * 2 * 5 * 2)  # two rows
    close(method.attribute(x, 7), expected)


@pytest.mark.parametrize("form", ["one call", "written out"])
def test_the_record_names_attentions_temperature(form: str) -> None:
    model, x = Attention(form, None), torch.randn(1, 5, 6).double().requires_grad_()
    for given, shown in ((2, "2"), (Spread(C), "0.8 spread")):
        with soften(model, {"": 0, "attention": given}) as record:
            model(x).sum().backward()
        assert [met.temperature.split(" (")[0] for met in record.softened] == [shown]
    with soften(model, 0) as record:
        model(x).sum().backward()
    assert [met.done for met in record.held] == ["held"]
    assert record.softened == []


def test_equal_logits_have_no_spread_and_are_held_hard() -> None:
    query, value = torch.zeros(2, 1, 3, 4), torch.randn(2, 1, 3, 4, requires_grad=True)
    for half in (torch.float32, torch.float16):
        with soften(nn.Identity(), {"": 0, "attention": Spread(1)}):
            output = F.scaled_dot_product_attention(query, query, value)
            found = gradient(output.sum(), value)
        close(found, torch.ones(2, 1, 3, 4))
        query, value = query.to(half), value.detach().to(half).requires_grad_()


# --- no spread ----------------------------------------------------------------------------------

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


# --- the value itself ---------------------------------------------------------------------------


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


def test_it_is_a_value(net: Net, x: Tensor) -> None:
    assert Spread(1) != Spread(1, "output") == Spread(1.0, unit="output")
    assert Spread(1) == Spread(1.0) != Spread(2)
    assert copy.deepcopy(Spread(0.5)) == Spread(0.5)
    assert len({Spread(1), Spread(1.0)}) == 1
    assert torch.equal(pulled(net, x, Spread(0)), pulled(net, x, 0))
