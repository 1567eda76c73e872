"""Several temperatures from one forward pass: to the bit what each gives by itself."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from handmade import Handmade
from hypothesis import given
from hypothesis import strategies as st
from marks import dynamo_warns
from threads import at_once
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from captum_pullback import EXCITATION, SEMANTIC, ExcitationPullback, Spread
from captum_pullback.engine.calls.held import Context, Held
from captum_pullback.engine.errors import SofteningError
from captum_pullback.engine.rules import Rule


class Counted(Handmade):
    """Counts its forward passes."""

    passes = 0

    def forward(self, *inputs: Tensor) -> Tensor:
        self.passes += 1
        return super().forward(*inputs)


def image() -> Tensor:
    return torch.randn(3, 2, 8, 8)


def words() -> Tensor:
    return torch.randn(3, 5, 8)


def convolutional(inplace: bool = False) -> Counted:
    layers = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 2), nn.ReLU6(inplace), nn.Conv2d(4, 4, 1), nn.LeakyReLU(0.1, inplace),
        nn.Hardswish(), nn.Flatten(), nn.Linear(16, 4), nn.PReLU(), nn.Linear(4, 3),
    )  # fmt: skip
    return Counted(lambda self, x: self.layers(x), layers=layers)


def transformer() -> Counted:
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True)
    head = nn.Linear(8, 3)
    return Counted(lambda net, x: net.head(F.relu(net.layer(x)).mean(1)), layer=layer, head=head)


def written_out() -> Counted:
    def run(self: Any, x: Tensor) -> Tensor:
        weights = (x @ self.key(x).mT).softmax(-1)
        mixed = weights @ F.relu(x)
        return (mixed * torch.sigmoid(self.gate(x))).mean(1)[:, :3]

    return Counted(run, key=nn.Linear(8, 8), gate=nn.Linear(8, 8))


def checkpointed() -> Counted:
    layers = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.GELU())

    def run(self: Any, x: Tensor) -> Tensor:
        hidden = checkpoint(self.layers, x, use_reentrant=False)
        return self.head(F.relu(hidden).mean(1))

    return Counted(run, layers=layers, head=nn.Linear(8, 3))


def transformed() -> Counted:
    """`torch.vmap` in the forward pass, with a gate that works in place."""

    def run(self: Any, x: Tensor) -> Tensor:
        gated = torch.vmap(lambda one: F.relu_(self.first(one)))(x)
        return self.head(F.relu(gated).mean(1))

    return Counted(run, first=nn.Linear(8, 8), head=nn.Linear(8, 3))


class Recomputed(torch.autograd.Function):
    """A checkpoint of one's own: runs its part once more in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, part: Any) -> Tensor:
        ctx.part = part
        ctx.save_for_backward(x)
        with torch.no_grad():
            return part(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        leaf = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            output = ctx.part(leaf)
        return torch.autograd.grad(output, leaf, gradient)[0], None


def recomputing() -> Counted:
    layers = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.GELU())

    def run(self: Any, x: Tensor) -> Tensor:
        return self.head(F.relu(Recomputed.apply(x, self.layers)).mean(1))

    return Counted(run, layers=layers, head=nn.Linear(8, 3))


def changing() -> Counted:
    """Writes into what a gate has been given, so that gates must keep copies."""

    def run(self: Any, x: Tensor) -> Tensor:
        hidden = self.first(x)
        opened = F.relu(hidden)
        hidden.mul_(2)
        return self.head(F.relu(opened + hidden).mean(1))

    return Counted(run, first=nn.Linear(8, 8), head=nn.Linear(8, 3))


def differentiating() -> Counted:
    """Takes a gradient of its own in its forward pass."""

    def run(self: Any, x: Tensor) -> Tensor:
        hidden = F.gelu(self.first(x))
        (own,) = torch.autograd.grad(hidden.sum(), x, create_graph=True)
        return self.head(F.relu(hidden + own).mean(1))

    return Counted(run, first=nn.Linear(8, 8), head=nn.Linear(8, 3))


NETWORKS: dict[str, tuple[Callable[[], Counted], Callable[[], Tensor]]] = {
    "convolutional": (convolutional, image),
    "in place": (lambda: convolutional(inplace=True), image),
    "transformer": (transformer, words),
    "attention written out": (written_out, words),
    "checkpoint": (checkpointed, words),
    "recomputed": (recomputing, words),
    "vmap": (transformed, words),
    "inputs of gates changed": (changing, words),
    "own gradients": (differentiating, words),
}
SWEEP = [0, 0.05, 0.3, Spread(0.7), 2.0, math.inf, Spread(1.0, "output"), 0.3, 0]


def separate(pullback: ExcitationPullback, x: Any, temperatures: Any, target: Any) -> Tensor:
    given = {"pool_temperature": pullback.pool_temperature, "rules": pullback.softness.rules,
             "multiply_by_inputs": pullback.multiplies_by_inputs}  # fmt: skip
    return torch.stack(
        [
            ExcitationPullback(pullback.forward_func, each, **given).attribute(x, target)
            for each in temperatures
        ]
    )


@pytest.mark.parametrize("rules", [SEMANTIC, EXCITATION], ids=repr)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_sweep_is_separate_attributions(name: str, rules: Any) -> None:
    make, draw = NETWORKS[name]
    network, x = make().eval(), draw()
    pullback = ExcitationPullback(network, rules=rules)
    found = pullback.attribute_temperatures(x, SWEEP, 1)
    assert torch.equal(found, separate(pullback, x, SWEEP, 1))
    assert found.is_contiguous()
    # At each its own: what was softened is not what was softened before.
    assert len({each.sum().item() for each in found[:6]}) == 6


@pytest.mark.parametrize("name", ["convolutional", "in place", "transformer", "checkpoint"])
def test_one_forward_pass_serves_all_but_hard_gates(name: str) -> None:
    make, draw = NETWORKS[name]
    network, x = make().eval(), draw()
    pullback = ExcitationPullback(network)
    pullback.attribute_temperatures(x, SWEEP[1:-1], 1)
    assert network.passes == 1
    network.passes = 0
    pullback.attribute_temperatures(x, SWEEP, 1)
    assert network.passes == 3


def test_against_a_closed_form() -> None:
    model = nn.Sequential(nn.Linear(6, 7), nn.ReLU(inplace=True), nn.Linear(7, 3)).double()
    x, temperatures = torch.randn(2, 6, dtype=torch.float64), [0.1, 0.5, 3.0]
    gates = torch.stack([torch.sigmoid(model[0](x) / each) for each in temperatures])
    expected = torch.einsum("h,tnh,hi->tni", model[2].weight[2], gates, model[0].weight)
    found = ExcitationPullback(model).attribute_temperatures(x, temperatures, 2)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=1e-14)


number = st.one_of(st.just(0.0), st.floats(1e-3, 1e3), st.just(math.inf))
spread = st.builds(Spread, st.floats(0, 4), st.sampled_from(["spread", "output"]))
uniform = st.one_of(number, spread)
by_name = st.fixed_dictionaries({"": uniform}, optional={"layers.2": uniform, "relu6": uniform})
by_kind = st.fixed_dictionaries({"": uniform, "layers": st.fixed_dictionaries({"": uniform})})


@given(
    temperatures=st.lists(st.one_of(uniform, by_name, by_kind), min_size=1, max_size=5),
    pools=st.one_of(st.none(), uniform),
    targets=st.sampled_from([2, [0, 1, 2], torch.tensor([2, 2, 0])]),
    size=st.sampled_from([None, 1, 2]),
    multiplied=st.booleans(),
)
def test_any_sweep_is_separate_attributions(
    temperatures: list[Any], pools: Any, targets: Any, size: int | None, multiplied: bool
) -> None:
    torch.manual_seed(0)
    network, x = convolutional(inplace=True).eval(), image()
    pullback = ExcitationPullback(network, pool_temperature=pools, multiply_by_inputs=multiplied)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of entries that name no gate
        found = pullback.attribute_temperatures(x, temperatures, targets, internal_batch_size=size)
        for each, temperature in zip(found, temperatures, strict=True):
            alone = ExcitationPullback(
                network, temperature, pool_temperature=pools, multiply_by_inputs=multiplied
            )
            assert torch.equal(each, alone.attribute(x, targets, internal_batch_size=size))


def test_attention_with_temperatures_of_its_own() -> None:
    """Its weights are softened in the forward pass where it is written out, and else later."""
    temperatures = [{"": 0.4, "attention": each} for each in (0.5, 1.0, 2.0)]
    for make in (written_out, transformer):
        network, x = make().eval(), words()
        pullback = ExcitationPullback(network)
        found = pullback.attribute_temperatures(x, temperatures, 1)
        assert torch.equal(found, separate(pullback, x, temperatures, 1))
        assert not torch.equal(found[0], found[1])
        assert not torch.equal(found[1], found[2])


def test_mappings_of_the_same_names_share_a_forward_pass_and_others_do_not() -> None:
    network, x = convolutional().eval(), image()
    pullback = ExcitationPullback(network)
    same = [{"": 0.1, "layers.2": 0.2}, {"": 0.3, "layers.2": 0.7}, 0.4]
    assert torch.equal(pullback.attribute_temperatures(x, same, 1), separate(pullback, x, same, 1))
    assert network.passes == 1 + 3
    # A gate that is hard in one of them, a tensor, and names that one without names did not note.
    others = [0.4, {"": 0.1, "layers.2": 0.0}, {"": 0.1, "layers.2": torch.ones(4, 1, 1)}]
    network.passes = 0
    assert torch.equal(
        pullback.attribute_temperatures(x, others, 1), separate(pullback, x, others, 1)
    )
    assert network.passes == 3 + 3


def test_a_rule_of_ones_own_is_told_each_temperature() -> None:
    told: list[Any] = []

    def pull(context: Context, grad: Tensor, z: Tensor) -> Tensor:
        told.append(context.temperature(z))
        return grad * torch.sigmoid(z / told[-1])

    rules = {**SEMANTIC, "relu": Rule(lambda: Held(pull))}
    x = torch.tensor([[-1.0, 0.5, 2.0]], dtype=torch.float64)
    pullback = ExcitationPullback(F.relu, rules=rules)
    found = pullback.attribute_temperatures(x, [0.5, 2.0, 4.0], 2)
    assert told == [0.5, 2.0, 4.0]
    expected = torch.sigmoid(x[:, 2] / torch.tensor([0.5, 2.0, 4.0], dtype=torch.float64))
    torch.testing.assert_close(found[:, 0, 2], expected, rtol=1e-15, atol=0)


@dynamo_warns
def test_a_compiled_network_has_a_forward_pass_for_each() -> None:
    torch.compiler.reset()
    network, x = convolutional().eval(), image()
    compiled = torch.compile(network, backend="aot_eager")
    pullback, temperatures = ExcitationPullback(compiled), [0.1, 0.5, 2.0]
    found = pullback.attribute_temperatures(x, temperatures, 1)
    assert torch.equal(found, separate(pullback, x, temperatures, 1))
    expected = separate(ExcitationPullback(network), x, temperatures, 1)
    torch.testing.assert_close(found, expected)


def test_a_tuple_of_inputs_and_further_arguments() -> None:
    def run(self: Any, a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
        return (F.relu(a) + F.gelu(b)) * scale

    network = Counted(run)
    inputs, scale = (torch.randn(3, 2), torch.randn(3, 2)), torch.rand(3, 1)
    found = ExcitationPullback(network).attribute_temperatures(inputs, [0.2, 1.0], 1, scale)
    assert network.passes == 1
    for each, temperature in zip(zip(*found, strict=True), (0.2, 1.0), strict=True):
        alone = ExcitationPullback(network, temperature).attribute(inputs, 1, scale)
        assert all(map(torch.equal, each, alone))


def test_inputs_with_time_first() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return F.relu(x).sum(0)

    x, temperatures = torch.randn(9, 4, 6), [0.5, Spread(0.5), Spread(2.0)]
    network = Counted(run)
    found = ExcitationPullback(network).attribute_temperatures(x, temperatures, 1)
    assert torch.equal(found, separate(ExcitationPullback(network), x, temperatures, 1))


def test_the_pullback_stays_as_it_was() -> None:
    network, x = convolutional().eval(), image()
    pullback = ExcitationPullback(network, 0.4)
    before = pullback.attribute(x, 1)
    pullback.attribute_temperatures(x, [0.1, 3.0], 1)
    assert pullback.temperature == 0.4
    assert torch.equal(pullback.attribute(x, 1), before)


def test_sweeps_in_several_threads_do_not_mix() -> None:
    network, x = convolutional().eval(), image()
    pullback = ExcitationPullback(network)
    sweeps = [[0.1 * (thread + 1), 0.7, 1.0 + thread] for thread in range(4)]
    expected = [separate(pullback, x, sweep, 1) for sweep in sweeps]
    found: dict[int, list[Tensor]] = {}

    def work(number: int) -> None:
        found[number] = [pullback.attribute_temperatures(x, sweeps[number], 1) for _ in range(5)]

    at_once(*(partial(work, number) for number in range(4)))
    for number, each in enumerate(expected):
        assert all(torch.equal(each, other) for other in found[number])


def test_an_entry_without_effect_is_told_as_ever() -> None:
    network, x = convolutional().eval(), image()
    temperatures: list[Any] = [{"": 0.3, f"layers.{layer}": 0.2} for layer in (0, 2, 2, 1, 6)]
    with pytest.warns(UserWarning, match="no gate ran under") as told:
        ExcitationPullback(network).attribute_temperatures(x, temperatures, 1)
    assert [str(each.message).partition(",")[0] for each in told] == [
        "no gate ran under temperature['layers.0']", "no gate ran under temperature['layers.1']",
        "no gate ran under temperature['layers.6']",
    ]  # fmt: skip


def test_errors_are_those_of_attribute_and_come_first() -> None:
    network, x = convolutional().eval(), image()
    pullback = ExcitationPullback(network)
    with pytest.raises(ValueError, match="temperatures is empty"):
        pullback.attribute_temperatures(x, [], 1)
    with pytest.raises(TypeError, match="temperatures must be a sequence"):
        pullback.attribute_temperatures(x, 0.3, 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"temperature is -1\.0"):
        pullback.attribute_temperatures(x, [0.3, -1.0], 1)
    with pytest.raises(ValueError, match="names 'nowhere'"):
        pullback.attribute_temperatures(x, [0.3, {"": 0.3, "nowhere": 1.0}], 1)
    assert network.passes == 0
    with pytest.raises(IndexError, match="the target does not fit the output"):
        pullback.attribute_temperatures(x, [0.3, 0.5], 7)
    with pytest.raises(ValueError, match=r"has no entry for the gates in 'layers\.3'"):
        pullback.attribute_temperatures(x, [0.3, {"layers.2": 1.0}], 1)
    with pytest.raises(SofteningError, match="nothing was softened"):
        ExcitationPullback(nn.Linear(4, 3)).attribute_temperatures(torch.randn(2, 4), [0.1, 1], 1)


def test_temperatures_as_a_tensor() -> None:
    network, x = convolutional().eval(), image()
    pullback, given_ = ExcitationPullback(network), torch.tensor([0.25, 0.5])
    found = pullback.attribute_temperatures(x, given_, 1)
    assert torch.equal(found, separate(pullback, x, [0.25, 0.5], 1))
