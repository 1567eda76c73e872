"""Effective weights of networks that write into parts of tensors, which the graph hides."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from affine import applied
from torch import Tensor

from captum_pullback import EXCITATION, effective_weights
from captum_pullback.effective import NotPiecewiseLinearError


def written(change: Callable[[Tensor, Tensor], object]) -> Callable[[Tensor], Tensor]:
    """Changes a copy of x in place."""

    def run(x: Tensor) -> Tensor:
        h = x * 1
        change(h, x)
        return h

    return run


multiplied = written(lambda h, x: h[:, :2].mul_(x[:, 2:4]))
divided = written(lambda h, x: h[:, :2].div_(1 + x[:, 2:4] ** 2))
curved = written(lambda h, x: h[:, :2].sinh_())
interpolated_by_itself = written(lambda h, x: h[:, :2].lerp_(x[:, 2:4], x[:, 1:3]))
accumulated = written(lambda h, x: h[:, :2].addcmul_(x[:, 1:3], x[:, 2:4]))


def multiplied_by_sign(x: Tensor) -> Tensor:
    h = x * 1
    h[:, :2] *= x[:, 2:4]
    return h + 1


def smooth(x: Tensor) -> Tensor:
    h = 2 * x
    h[:, :2].sigmoid_()
    return h


HELD_BY_DEFAULT = [multiplied, multiplied_by_sign, divided, curved, smooth, accumulated]


@pytest.mark.parametrize("function", [*HELD_BY_DEFAULT, interpolated_by_itself])
def test_a_write_into_a_slice_hides_nothing(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(3, 5, dtype=torch.float64)
    name = {divided: "div|pow", curved: "sinh", smooth: "sigmoid", interpolated_by_itself: "lerp"}
    with pytest.raises(NotPiecewiseLinearError, match=name.get(function, "mul")):
        effective_weights(function, x, rules=EXCITATION)


def test_lerp_by_what_depends_on_the_inputs_has_no_rule() -> None:
    x = torch.randn(3, 5, dtype=torch.float64)
    with pytest.raises(NotPiecewiseLinearError, match="lerp"):
        effective_weights(interpolated_by_itself, x)


def test_what_is_held_in_a_slice_against_closed_forms() -> None:
    x = torch.randn(4, 5, dtype=torch.float64)
    eye = torch.eye(5, dtype=torch.float64).expand(4, 5, 5)

    def rows(first: Tensor, second: Tensor | None = None, at: int = 2) -> Tensor:
        """The identity but for its first two rows: these factors of entries 0 and at on."""
        weight = eye.clone()
        for n in range(2):
            weight[:, n] = 0
            weight[:, n, n] += first[:, n]
            if second is not None:
                weight[:, n, n + at] += second[:, n]
        return weight

    a, b = x[:, :2], x[:, 2:4]
    zero = torch.zeros_like(x)
    expected = {
        multiplied: (rows(b / 2, a / 2), zero),
        multiplied_by_sign: (rows(b / 2, a / 2), zero + 1),
        divided: (rows(1 / (1 + b**2)), zero),
        curved: (rows(a.sinh() / a), zero),
    }
    for function, (weight, bias) in expected.items():
        found = effective_weights(function, x)
        torch.testing.assert_close(found, (weight, bias), rtol=0, atol=1e-10)
    half = zero.clone()
    half[:, :2] = 0.5
    weight = 2 * eye.clone()
    weight[:, :2] = 0
    for n in range(2):
        weight[:, n, n] = ((2 * a).sigmoid() - 0.5)[:, n] / a[:, n]
    torch.testing.assert_close(effective_weights(smooth, x), (weight, half), rtol=0, atol=1e-10)
    for function in HELD_BY_DEFAULT:
        found = applied(*effective_weights(function, x), x)
        torch.testing.assert_close(found, function(x), rtol=0, atol=1e-10)


def copied(x: Tensor) -> Tensor:
    h = torch.ones_like(x)
    h[:, :2].copy_(x[:, 2:4])
    return h + x


def copied_whole(x: Tensor) -> Tensor:
    return torch.ones_like(x).copy_(3 * x) - 1


def interpolated(x: Tensor) -> Tensor:
    h = x + 1
    h[:, :2].lerp_(x[:, 2:4], 0.25)
    return torch.lerp(h, x.flip(1), torch.tensor(0.5, dtype=x.dtype))


def chosen_after_a_write(x: Tensor) -> Tensor:
    h = torch.zeros_like(x)
    h[:, :2] = x[:, 2:4] + 1
    return torch.where(x > 0.1, h, 2 * x)


def rectified_in_a_slice(x: Tensor) -> Tensor:
    h = x - 0.2
    F.relu(h[:, 1:4], inplace=True)
    return 2 * h


def through_views(x: Tensor) -> Tensor:
    h = torch.zeros(len(x), 2, 3, dtype=x.dtype)
    view = h.view(len(x), 6)  # taken before anything is written
    h[:, 0] = x[:, :3]
    h.transpose(1, 2)[:, 1:].add_(1)
    view[:, 5:] = x[:, 4:]
    h[x[:, 0] > 0] += 1
    return view.t().t() * 2


def written_twice(x: Tensor) -> Tensor:
    h = x * 1
    h[:, 0] = h[:, 1] + 1
    h[:, 1] = h[:, 0] * 2
    h[:, 3].zero_()
    h[:, 4].fill_(7)
    return h


def scattered(x: Tensor) -> Tensor:
    h = torch.ones_like(x)
    h.index_add_(1, torch.tensor([0, 2]), x[:, :2])
    h.masked_fill_(x > 1, 0.5)
    h.scatter_(1, torch.tensor([[4]] * len(x)), x[:, 3:4])
    return h


@pytest.mark.parametrize(
    "function",
    [copied, copied_whole, interpolated, chosen_after_a_write, rectified_in_a_slice,
     through_views, written_twice, scattered],
)  # fmt: skip
@pytest.mark.parametrize("rules", [None, EXCITATION])
def test_what_is_piecewise_linear_in_a_slice_is_the_map_of_the_region(
    function: Callable[[Tensor], Tensor], rules: object
) -> None:
    torch.manual_seed(2)
    x = torch.randn(3, 5, dtype=torch.float64)
    weight, bias = effective_weights(function, x, rules=rules)  # type: ignore[arg-type]
    torch.testing.assert_close(applied(weight, bias, x), function(x), rtol=0, atol=1e-10)
    step = x + 1e-6 * torch.randn_like(x)
    torch.testing.assert_close(applied(weight, bias, step), function(step), rtol=0, atol=1e-12)
