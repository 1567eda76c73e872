"""Several targets from one forward pass, and batches taken some examples at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_pullback import ExcitationPullback


class Counting(nn.Module):
    """A network with all that is treated specially; it notes how many examples it is given."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.seen: list[int] = []
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace), nn.MaxPool2d(2),
            nn.Conv2d(4, 4, 2), nn.ReLU6(inplace), nn.Flatten(), nn.Linear(16, 5),
        )  # fmt: skip

    def forward(self, x: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        self.seen.append(len(x))
        return self.layers(x) * scale


@pytest.fixture(params=[False, True], ids=["out of place", "in place"])
def net(request: pytest.FixtureRequest) -> Counting:
    return Counting(request.param).eval()


TARGETS: dict[str, Any] = {
    "ints": [0, 3, 1],
    "one": [2],
    "lists": [[0, 1, 2, 3], [4, 3, 2, 1]],
    "tensor of classes": torch.tensor([1, 4]),
    "tensor for each example": torch.tensor([[0, 1, 2, 3], [4, 3, 2, 1]]),
}


@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("multiplied", [False, True])
def test_several_targets_are_separate_attributions_from_one_forward_pass(
    net: Counting, targets: Any, multiplied: bool
) -> None:
    x = torch.randn(4, 3, 8, 8)
    pullback = ExcitationPullback(net, 0.4, multiply_by_inputs=multiplied)
    separate = [pullback.attribute(x, target) for target in targets]
    net.seen.clear()
    found = pullback.attribute_targets(x, targets)
    assert net.seen == [4]
    assert found.is_contiguous()
    assert torch.equal(found, torch.stack(separate))


def test_several_targets_against_a_closed_form() -> None:
    model = nn.Sequential(nn.Linear(6, 7), nn.ReLU(inplace=True), nn.Linear(7, 3)).double()
    x = torch.randn(2, 6, dtype=torch.float64)
    gates = torch.sigmoid(model[0](x) / 0.5)
    expected = torch.einsum("ch,nh,hi->cni", model[2].weight, gates, model[0].weight)
    found = ExcitationPullback(model, 0.5).attribute_targets(x, [0, 1, 2])
    torch.testing.assert_close(found, expected)


def test_a_tuple_of_inputs_has_a_stack_for_each() -> None:
    def model(a: Tensor, b: Tensor) -> Tensor:
        return F.relu(a) * torch.tensor([1.0, 2.0]) + F.relu(b).sum(1, keepdim=True)

    inputs = (torch.randn(3, 2), torch.randn(3, 4))
    pullback = ExcitationPullback(model, 0.3)
    found = pullback.attribute_targets(inputs, [0, 1], internal_batch_size=2)
    for target in (0, 1):
        for part, expected in zip(found, pullback.attribute(inputs, target), strict=True):
            assert torch.equal(part[target], expected)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("target", [2, [0, 1, 2, 3], torch.tensor([3, 2, 1, 0]), torch.tensor(1)])
def test_a_batch_in_chunks_is_the_batch(net: Counting, size: int, target: Any) -> None:
    net = net.double()
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    extra = torch.rand(4, 1, dtype=torch.float64) + 0.5
    pullback = ExcitationPullback(net, 0.4)
    whole = pullback.attribute(x, target, extra)
    net.seen.clear()
    torch.testing.assert_close(
        pullback.attribute(x, target, extra, internal_batch_size=size), whole
    )
    assert max(net.seen) <= size
    assert sum(net.seen) == 4
    found = pullback.attribute_targets(x, [target, 4], extra, internal_batch_size=size)
    torch.testing.assert_close(found[0], whole)
    torch.testing.assert_close(found[1], pullback.attribute(x, 4, extra))


def test_arguments_that_are_not_per_example_are_not_cut() -> None:
    seen: list[Any] = []

    def model(x: Tensor, *extra: Any) -> Tensor:
        seen.append(extra)
        return F.relu(x)

    weight, config = torch.rand(2), [1, 2, 3]
    x = torch.randn(3, 2)
    ExcitationPullback(model).attribute(x, 0, (weight, config), internal_batch_size=2)
    assert [extra[0] is weight and extra[1] is config for extra in seen] == [True, True]


def test_inputs_with_time_first_are_not_cut_into_pieces_of_time() -> None:
    """A recurrent network would begin anew in each."""
    weight = torch.randn(3, 6)

    def model(x: Tensor) -> Tensor:
        state = x.new_zeros(x.shape[1], 6)
        for now in x:
            state = F.relu(now + 0.5 * state)
        return state @ weight.T

    x, pullback = torch.randn(9, 4, 6), ExcitationPullback(model)
    whole = pullback.attribute(x, 1)
    torch.testing.assert_close(pullback.attribute(x, 1, internal_batch_size=9), whole)
    for size in (2, 4):  # with 4, only the last piece tells
        with pytest.raises(ValueError, match="the output has 4 rows: leave internal_batch_size"):
            pullback.attribute(x, 1, internal_batch_size=size)
        with pytest.raises(ValueError, match="the output has 4 rows: leave internal_batch_size"):
            pullback.attribute_targets(x, [0, 1], internal_batch_size=size)


@pytest.mark.parametrize("target", [[0, 1], torch.tensor([0, 1]), 7, None])
def test_wrong_targets_are_refused_in_chunks_too(net: Counting, target: Any) -> None:
    pullback = ExcitationPullback(net)
    x = torch.randn(4, 3, 8, 8)
    with pytest.raises((AssertionError, IndexError)):
        pullback.attribute(x, target)
    with pytest.raises((AssertionError, IndexError)):
        pullback.attribute(x, target, internal_batch_size=2)


def test_wrong_settings_are_refused(net: Counting) -> None:
    pullback, x = ExcitationPullback(net), torch.randn(4, 3, 8, 8)
    with pytest.raises(ValueError, match="internal_batch_size must be at least 1"):
        pullback.attribute(x, 0, internal_batch_size=0)
    with pytest.raises(TypeError, match="internal_batch_size must be an int"):
        pullback.attribute(x, 0, internal_batch_size=2.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="targets is empty"):
        pullback.attribute_targets(x, [])
    with pytest.raises(TypeError, match="targets must be a sequence"):
        pullback.attribute_targets(x, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="tensor or a tuple of tensors"):
        pullback.attribute(3, 0, internal_batch_size=2)  # type: ignore[type-var]
