"""What soft gates ought to do, written a second time and in another way.

Nothing here knows the package. Each soft operation is the original one plus the difference of a
smooth function from itself, detached: the forward value is the original's and autograd finds the
derivative of the smooth function. ReLU's is softplus, a max pool's is sum(softmax(x / T) x) over
windows that are listed one by one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

inf = math.inf


def _shaped_like(hard: Tensor, smooth: Tensor) -> Tensor:
    return smooth + (hard - smooth).detach()


def relu(z: Tensor, temperature: float) -> Tensor:
    hard = torch.where(z <= 0, 0, z)  # the derivative of clamp at 0 is 1 in some releases
    if temperature == 0:
        return hard
    if temperature == inf:
        return _shaped_like(hard, z / 2)
    return _shaped_like(hard, temperature * torch.logaddexp(z / temperature, torch.zeros_like(z)))


def windows(
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    outputs: Sequence[int],
) -> list[list[list[int]]]:
    """Per axis and output: the positions in its window that lie inside the input."""
    axes = []
    for a, size in enumerate(sizes):
        starts = [o * stride[a] - padding[a] for o in range(outputs[a])]
        window = [start + k * dilation[a] for start in starts for k in range(kernel[a])]
        each = [window[i : i + kernel[a]] for i in range(0, len(window), kernel[a])]
        axes.append([[p for p in positions if 0 <= p < size] for positions in each])
    return axes


def adaptive_windows(sizes: Sequence[int], outputs: Sequence[int]) -> list[list[list[int]]]:
    return [
        [list(range(math.floor(o * n / m), math.ceil((o + 1) * n / m))) for o in range(m)]
        for n, m in zip(sizes, outputs, strict=True)
    ]


def max_over(
    x: Tensor, axes: list[list[list[int]]], temperature: float, *, differentiated: bool = False
) -> Tensor:
    """The maximum over the windows that are the products of the lists of each axis.

    The softmax of its gradient is held, or differentiated too.
    """
    sizes = x.shape[-len(axes) :]
    strides = [math.prod(sizes[a + 1 :]) for a in range(len(sizes))]
    members = [
        [sum(p * s for p, s in zip(at, strides, strict=True)) for at in itertools.product(*window)]
        for window in itertools.product(*axes)
    ]
    longest = max(map(len, members))
    table = torch.tensor([m + m[:1] * (longest - len(m)) for m in members])
    real = torch.tensor([[True] * len(m) + [False] * (longest - len(m)) for m in members])
    entries = x.flatten(-len(axes))[..., table]
    hard, _ = entries.max(-1)
    shape = (*x.shape[: -len(axes)], *map(len, axes))
    if temperature == 0:
        return hard.reshape(shape)
    weight = torch.softmax((entries / temperature).masked_fill(~real, -inf), -1)
    weight = weight if differentiated else weight.detach()
    return _shaped_like(hard, (weight * entries).sum(-1)).reshape(shape)


def max_pool(
    x: Tensor,
    temperature: float,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    outputs: Sequence[int],
) -> Tensor:
    sizes = x.shape[-len(kernel) :]
    return max_over(x, windows(sizes, kernel, stride, padding, dilation, outputs), temperature)


def max_pool2d(x: Tensor, temperature: float, kernel: int, stride: int, padding: int = 0) -> Tensor:
    outputs = [(n + 2 * padding - kernel) // stride + 1 for n in x.shape[-2:]]
    return max_pool(x, temperature, [kernel] * 2, [stride] * 2, [padding] * 2, [1] * 2, outputs)


def noisy_slope(function: Callable[[Tensor], Tensor], z: Tensor, temperature: float) -> Tensor:
    """function's plain derivative, averaged over logistic noise of this scale on z."""
    quantiles = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    noisy = (z[:, None] + temperature * torch.logit(quantiles)).requires_grad_()
    return torch.autograd.grad(function(noisy).sum(), noisy)[0].mean(-1)


def gradient(output: Tensor, inputs: Tensor) -> Tensor:
    return torch.autograd.grad(output, inputs)[0]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).abs().max() / expected.abs().max())


def tensors(shapes: Iterable[Sequence[int]], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in shapes]
