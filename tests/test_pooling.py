"""Soft max pools against the derivative of sum(softmax(x / T) x) over windows listed one by one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from reference import adaptive_windows, gradient, max_over, relative_error, windows
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from captum_pullback import EXCITATION, soften

inf = math.inf
HARD = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
ADAPTIVE = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}


DIFFERENTIATED = {**EXCITATION, "max_pool": "differentiated"}


def pulled(
    operation: Callable[[Tensor], Tensor], x: Tensor, temperature: Any, rules: Any = None
) -> Tensor:
    """The soft gradient of a sum over the outputs, weighted so that no two are alike."""
    x = x.detach().requires_grad_()
    with soften(nn.Identity(), pool_temperature=temperature, rules=rules):
        y = operation(x)
        return gradient(weighted(y), x)


def weighted(y: Tensor) -> Tensor:
    return (y * torch.linspace(0.5, 2, y.numel(), dtype=y.dtype).reshape(y.shape)).sum()


@st.composite
def pools(draw: st.DrawFn) -> tuple[tuple[int, ...], dict[str, Any]]:
    dims = draw(st.integers(1, 3))
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(dims))  # noqa: E731
    kernel, dilation = each(1, 3), each(1, 2)
    arguments = {
        "kernel_size": kernel,
        "stride": each(1, 3),
        "padding": tuple(draw(st.integers(0, k // 2)) for k in kernel),
        "dilation": dilation,
        "ceil_mode": draw(st.booleans()),
    }
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    return tuple(draw(st.integers(r, r + 4)) for r in reach), arguments


@given(
    pools(),
    st.sampled_from([0.05, 0.3, 2.0, inf]),
    st.integers(0, 99),
    st.booleans(),
    st.booleans(),
)
def test_any_pool(
    pool: tuple[tuple[int, ...], dict[str, Any]],
    temperature: float,
    seed: int,
    batched: bool,
    differentiated: bool,
) -> None:
    sizes, arguments = pool
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 2, *sizes) if batched else (2, *sizes)
    x = torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()
    hard = HARD[len(sizes)]
    y = hard(x, **arguments)
    window = [arguments[name] for name in ("kernel_size", "stride", "padding", "dilation")]
    places = windows(sizes, *window, y.shape[-len(sizes) :])
    expected = max_over(x, places, temperature, differentiated=differentiated)
    torch.testing.assert_close(expected.detach(), y.detach(), rtol=1e-12, atol=1e-12)
    rules = DIFFERENTIATED if differentiated else None
    found = pulled(lambda x: hard(x, **arguments), x, temperature, rules)
    torch.testing.assert_close(found, gradient(weighted(expected), x), rtol=1e-9, atol=1e-12)


@given(
    st.lists(st.tuples(st.integers(1, 7), st.integers(1, 8)), min_size=1, max_size=3),
    st.sampled_from([0.05, 0.3, 2.0, inf]),
    st.booleans(),
)
def test_any_adaptive_pool(
    axes: list[tuple[int, int]], temperature: float, differentiated: bool
) -> None:
    sizes, outputs = zip(*axes, strict=True)
    x = torch.randn(2, 2, *sizes, dtype=torch.float64, requires_grad=True)
    places = adaptive_windows(sizes, outputs)
    soft = max_over(x, places, temperature, differentiated=differentiated)
    expected = gradient(weighted(soft), x)
    rules = DIFFERENTIATED if differentiated else None
    found = pulled(lambda x: ADAPTIVE[len(sizes)](x, outputs), x, temperature, rules)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_indices_and_maxima_are_the_hard_ones(dims: int) -> None:
    x = torch.randn(2, 2, *[6] * dims, requires_grad=True)
    outside = HARD[dims](x, 2, return_indices=True)
    with soften(nn.Identity(), 0.3):
        y, indices = HARD[dims](x, 2, return_indices=True)
        found = gradient(weighted(y), x)
    assert torch.equal(y, outside[0])
    assert torch.equal(indices, outside[1])
    assert not indices.requires_grad
    torch.testing.assert_close(found, pulled(lambda x: HARD[dims](x, 2), x, 0.3))


def test_unpooling_with_the_indices_pulls_back_through_both() -> None:
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64)

    def there_and_back(x: Tensor) -> Tensor:
        y, indices = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(y, indices, 2)

    assert pulled(there_and_back, x, 0.5).count_nonzero() == 16


def test_infinite_temperature_is_average_pooling_without_the_padding() -> None:
    x = torch.randn(2, 3, 7, 7, dtype=torch.float64, requires_grad=True)
    average = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
    found = pulled(lambda x: F.max_pool2d(x, 3, 2, 1), x, inf)
    torch.testing.assert_close(found, gradient(weighted(average), x))


@pytest.mark.parametrize("temperature", [0, 1e-4, 1e-25])
def test_small_temperatures_tend_to_the_plain_gradient(temperature: float) -> None:
    x = torch.randn(2, 3, 7, 7, dtype=torch.float64, requires_grad=True)
    plain = gradient(weighted(F.max_pool2d(x, 3, 2, 1)), x)
    found = pulled(lambda x: F.max_pool2d(x, 3, 2, 1), x, temperature)
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-12 * temperature)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("temperature", [1e-20, 0.3, 1e20, inf])
def test_extreme_inputs_stay_finite_and_shares_sum_to_one(
    dtype: torch.dtype, temperature: float
) -> None:
    x = torch.tensor([-6e4, 6e4, 0, 0, 1e-7, 6e4, 6e4, 6e4], dtype=dtype).view(1, 1, 8)
    x = x.requires_grad_()
    with soften(nn.Identity(), temperature):
        shares = gradient(F.max_pool1d(x, 2).sum(), x).view(4, 2)
    assert shares.isfinite().all()
    # sum_j w_j (1 + (x_j - s) / T) is 1 for any window.
    torch.testing.assert_close(shares.sum(1), torch.ones(4, dtype=dtype), rtol=0, atol=1e-2)


def test_a_masked_entry_gets_nothing() -> None:
    x = torch.tensor([[[-inf, 1.0, 2.0, 3.0]]], dtype=torch.float64)
    found = pulled(lambda x: F.max_pool1d(x, 2), x, 0.3)[0, 0]
    assert found[0] == 0
    assert found.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 9, 9).to(dtype)
    exact = pulled(lambda x: F.max_pool2d(x, 3, 2), x.double(), 0.3)
    found = pulled(lambda x: F.max_pool2d(x, 3, 2), x, 0.3)
    assert found.dtype == dtype
    assert relative_error(found, exact) < 3 * torch.finfo(dtype).eps


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 1, 1, 1), (1,)])
def test_a_tensor_of_temperatures_is_one_for_each_channel(shape: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    temperature = torch.rand(shape, dtype=torch.float64) + 0.2
    found = pulled(lambda x: F.max_pool2d(x, 2), x, {"": temperature})
    for channel, number in enumerate(temperature.flatten().expand(3).tolist()):
        alone = pulled(lambda x: F.max_pool2d(x, 2), x, number)
        torch.testing.assert_close(found[:, channel], alone[:, channel], rtol=1e-9, atol=1e-12)


def test_a_tensor_of_temperatures_is_one_for_each_output() -> None:
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    found = pulled(lambda x: F.max_pool2d(x, 2), x, {"": torch.full((1, 3, 3, 3), 0.3)})
    torch.testing.assert_close(found, pulled(lambda x: F.max_pool2d(x, 2), x, 0.3))


def test_a_tensor_that_does_not_fit_the_output_is_refused_in_the_forward_pass() -> None:
    x = torch.randn(2, 3, 6, 6, requires_grad=True)
    with (
        pytest.raises(ValueError, match="does not broadcast"),
        soften(nn.Identity(), pool_temperature={"": torch.full((1, 1, 6, 6), 0.3)}),
    ):
        F.max_pool2d(x, 2)


def test_second_derivative() -> None:
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    with soften(nn.Identity(), 0.6, rules=DIFFERENTIATED):
        (first,) = torch.autograd.grad(weighted(F.max_pool2d(x, 3, 2)), x, create_graph=True)
        second = gradient(weighted(first), x)
    windowed = windows((5, 5), (3, 3), (2, 2), (0, 0), (1, 1), (2, 2))
    expected = max_over(x, windowed, 0.6, differentiated=True)
    (first,) = torch.autograd.grad(weighted(expected), x, create_graph=True)
    torch.testing.assert_close(second, gradient(weighted(first), x), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("change", [F.relu_, lambda y: y.add_(1), lambda y: y.mul_(2)])
def test_the_output_may_be_changed_in_place(change: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(1, 2, 6, 6, dtype=torch.float64)
    found = pulled(lambda x: change(F.max_pool2d(x, 2)), x, 0.3)
    torch.testing.assert_close(found, pulled(lambda x: change(F.max_pool2d(x, 2) + 0), x, 0.3))


def test_channels_last_is_the_same() -> None:
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    found = pulled(lambda x: F.max_pool2d(x, 3, 2, 1), x.to(memory_format=torch.channels_last), 0.3)
    expected = pulled(lambda x: F.max_pool2d(x, 3, 2, 1), x, 0.3)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_a_batch_is_its_examples_one_by_one() -> None:
    x = torch.randn(4, 2, 8, 8, dtype=torch.float64, requires_grad=True)
    with soften(nn.Identity(), 0.3):
        together = gradient(F.max_pool2d(x, 3).sum(), x)
        alone = [gradient(F.max_pool2d(one[None], 3).sum(), x) for one in x]
    torch.testing.assert_close(together, torch.stack(alone).sum(0), rtol=1e-12, atol=1e-15)


class _Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation made."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numel = max(self.numel, result.numel())
        return result


@pytest.mark.parametrize("operation", [
    lambda x: F.max_pool2d(x, 5, 1, 2),
    lambda x: F.adaptive_max_pool2d(x, (5, 7)),
])  # fmt: skip
def test_no_tensor_is_larger_than_the_input(operation: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(2, 3, 16, 16, requires_grad=True)
    with soften(nn.Identity(), 0.3), _Largest() as largest:
        gradient(operation(x).sum(), x)
    assert largest.numel == x.numel()
