"""What is said of targets, units and layers that do not fit; and that following it helps."""

from __future__ import annotations

import re
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from handmade import Handmade
from torch import Tensor, nn

from captum_pullback import (
    ExcitationPullback,
    LayerExcitationPullback,
    NeuronExcitationPullback,
    PullbackAscent,
)

Named = namedtuple("Named", ["loss", "logits"])


@dataclass
class Made:
    loss: Any
    logits: Tensor


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


def said(attribute: Callable[[], Any]) -> str:
    with pytest.raises((AssertionError, IndexError, TypeError, RuntimeError)) as caught:
        attribute()
    assert caught.value.__cause__ is not None, "what Captum said is kept"
    return str(caught.value)


@pytest.mark.parametrize("target", [1, None, [1, 2], [(1, 2)], (1, 9)])
def test_an_output_of_three_dimensions_wants_tuples(net: nn.Module, target: Any) -> None:
    x, pullback = torch.randn(2, 7, 5), ExcitationPullback(net)
    words = said(lambda: pullback.attribute(x, target))
    assert "shape (2, 7, 3)" in words
    assert "a tuple with an index for each dimension after the first, such as (0, 0)" in words
    assert "below 7 and 3; or a list of such tuples, one for each of the 2 examples" in words
    one = pullback.attribute(x, (0, 0))
    assert one[:, 0].abs().sum() > 0
    assert one[:, 1:].abs().sum() == 0
    two = pullback.attribute(x, [(0, 0), (6, 2)])
    assert torch.equal(two[0], one[0])
    assert two[1, :6].abs().sum() == 0


OUTPUTS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "dict": (lambda y: {"loss": 3.0, "logits": y}, "['logits']"),
    "two tensors": (lambda y: OrderedDict(logits=y, hidden=y), "['logits']"),
    "tuple": (lambda y: (None, y), "[1]"),
    "list": (lambda y: [y, y], "[0]"),
    "named tuple": (lambda y: Named(None, y), ".logits"),
    "dataclass": (lambda y: Made(None, y), ".logits"),
}


@pytest.mark.parametrize(("wrap", "part"), OUTPUTS.values(), ids=OUTPUTS)
def test_what_is_no_tensor_has_its_tensor_named(
    net: nn.Module, wrap: Callable[[Tensor], Any], part: str
) -> None:
    x = torch.randn(2, 5)

    def model(x: Tensor) -> Any:
        return wrap(net(x))

    words = said(lambda: ExcitationPullback(model).attribute(x, 1))
    assert f"returned a {type(wrap(x)).__name__}, and must return a tensor" in words
    code = re.search(r"lambda \*args: .*$", words)
    assert code is not None
    assert code[0].endswith(part)
    wrapped = eval(code[0], {"model": model})  # the advice, as it is written
    expected = ExcitationPullback(net).attribute(x, 1)
    assert torch.equal(ExcitationPullback(wrapped).attribute(x, 1), expected)
    assert part in said(lambda: PullbackAscent(model).perturb(x, 1))


@pytest.mark.parametrize("value", [None, 3.0, {"loss": 3.0}, ()])
def test_what_holds_no_tensor_is_said_to(value: Any) -> None:
    def model(x: Tensor) -> Any:
        x.relu()
        return value

    words = said(lambda: ExcitationPullback(model).attribute(torch.randn(2, 5), 0))
    assert f"returned a {type(value).__name__}" in words
    assert "a tensor that depends on its inputs" in words


@pytest.mark.parametrize("target", [1, [1], 9])
def test_inputs_without_a_batch_dimension(net: nn.Module, target: Any) -> None:
    x, pullback = torch.randn(5), ExcitationPullback(net)
    words = said(lambda: pullback.attribute(x, target))
    assert "has shape (3,), the inputs (5,)" in words
    assert "it has no batch dimension: pass inputs.unsqueeze(0)" in words
    assert "target=None" not in words, "that is the sum over all classes"
    unit = NeuronExcitationPullback(net, net[0])
    assert "pass inputs.unsqueeze(0)" in said(lambda: unit.attribute(x, 1))
    assert "unsqueeze(0)" in said(lambda: PullbackAscent(net).perturb(x, 1))


def test_one_image_without_a_batch_dimension() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(0)
    )  # fmt: skip
    words = said(lambda: ExcitationPullback(model).attribute(torch.randn(3, 8, 8), 1))
    assert "pass inputs.unsqueeze(0)" in words

    def transposed(x: Tensor) -> Tensor:
        return x.relu().T

    words = said(lambda: ExcitationPullback(transposed).attribute(torch.randn(2, 6), 4))
    assert "6 rows for 2 in the inputs" in words


@pytest.mark.parametrize("target", [None, 1])
def test_one_number_for_the_whole_batch(net: nn.Module, target: Any) -> None:
    x = torch.randn(2, 5)
    words = said(lambda: ExcitationPullback(lambda x: net(x).sum()).attribute(x, target))
    assert "one number for the whole batch" in words
    assert ".flatten(1).sum(1), and give target=None" in words
    found = ExcitationPullback(lambda x: net(x).flatten(1).sum(1)).attribute(x)
    each = ExcitationPullback(net).attribute_targets(x, [0, 1, 2]).sum(0)
    torch.testing.assert_close(found, each)


@pytest.mark.parametrize("kind", [LayerExcitationPullback, NeuronExcitationPullback])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("stages", r"a ModuleList only holds modules.*such as layer\[1\]"),
        ("heads", r"a ModuleDict only holds modules.*such as layer\['other'\]"),
        ("empty", "a ModuleList only holds modules, and is never called itself: use one of these"),
        ("heads.other", r"the layer \(Linear\) was not called in this forward pass"),
    ],
)
def test_layers_that_never_ran(kind: Any, name: str, words: str) -> None:
    model = Handmade(
        lambda net, x: net.heads["main"](net.stages[1](net.stages[0](x).relu())),
        stages=nn.ModuleList([nn.Linear(5, 4), nn.Linear(4, 3)]),
        heads=nn.ModuleDict({"main": nn.Linear(3, 3), "other": nn.Linear(3, 3)}),
        empty=nn.ModuleList(),
    )
    attribution = kind(model, model.get_submodule(name))
    assert re.search(words, said(lambda: attribution.attribute(torch.randn(2, 5), 1)))


def test_a_unit_of_a_layer_of_three_dimensions_wants_a_tuple(net: nn.Module) -> None:
    x, unit = torch.randn(2, 7, 5), NeuronExcitationPullback(net, net[0])
    words = said(lambda: unit.attribute(x, 1))
    assert "selects more than one number for each example" in words
    assert "a tuple with an index for each dimension after the first" in words
    torch.testing.assert_close(unit.attribute(x, (0, 1))[:, 0], net[0].weight[1].expand(2, 5))


def test_other_errors_come_through(net: nn.Module) -> None:
    def broken(x: Tensor) -> Tensor:
        net(x)
        raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine$"):
        ExcitationPullback(broken).attribute(torch.randn(2, 5), 1)
