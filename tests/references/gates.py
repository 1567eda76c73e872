"""Gates that are held, and what networks are made of besides.

A gate is the factor by which an operation multiplies its input. Held, it is a constant: autograd
does not see it. Replayed, it keeps the value that it had at another input, and the network is
one affine map everywhere: at zero, that map is its bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
Network = Callable[[Weights, Tensor, "Gates"], Tensor]


class Gates:
    """The values of a network's gates, in the order in which it meets them.

    Args:
        noise: The temperature of GELU's and SiLU's gates. Softened, they are other numbers in the
            backward pass than in the forward pass, and there is no affine map to replay.
        attention: That of attention's weights, which is 1 where they are as they are.
    """

    def __init__(self, noise: float = 0.0, attention: float = 1.0) -> None:
        self.noise, self.attention = noise, attention
        self._values: list[Tensor] = []
        self._replayed: Iterator[Tensor] | None = None

    def hold(self, value: Callable[[], Tensor]) -> Tensor:
        """The gate's value as a constant: of this input, or of the recorded one."""
        if self._replayed is not None:
            return next(self._replayed)
        with torch.no_grad():
            self._values.append(value().detach())
        return self._values[-1]

    @contextmanager
    def replayed(self) -> Iterator[None]:
        self._replayed = iter(self._values)
        yield
        assert next(self._replayed, None) is None, "a gate was not met again"
        self._replayed = None


def affine(network: Network, weights: Weights, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Gates]:
    """f(x), W of shape (N, C, *x), b, and the gates that make them.

    W is found by autograd; b apart from it, as the value of the held map at zero.
    """
    gates = Gates()
    x = x.detach().requires_grad_()
    output = network(weights, x, gates)
    rows = [torch.autograd.grad(row.sum(), x, retain_graph=True)[0] for row in output.T]
    with torch.no_grad(), gates.replayed():
        bias = network(weights, torch.zeros_like(x), gates)
    return output.detach(), torch.stack(rows, 1), bias, gates


def apply(weight: Tensor, x: Tensor) -> Tensor:
    """<W, x> for each example and class."""
    return (weight * x[:, None]).flatten(2).sum(-1)


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    y = x @ w[f"{name}.weight"].T
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def conv(w: Weights, name: str, x: Tensor, stride: int = 1) -> Tensor:
    """A convolution that is as large as its input where its stride is 1; grouped by its shape."""
    weight = w[f"{name}.weight"]
    groups = x.shape[1] // weight.shape[1]
    padding = (weight.shape[-1] - 1) // 2
    return F.conv2d(x, weight, w.get(f"{name}.bias"), stride, padding, groups=groups)


def patches(w: Weights, name: str, x: Tensor) -> Tensor:
    """Squares next to each other, each sent through one linear map: (N, H, W, C)."""
    weight = w[f"{name}.weight"]
    size = weight.shape[-1]
    n, c, height, width = x.shape
    x = x.reshape(n, c, height // size, size, width // size, size).permute(0, 2, 4, 1, 3, 5)
    return x.flatten(3) @ weight.flatten(1).T + w[f"{name}.bias"]


def batch_norm(w: Weights, name: str, x: Tensor, epsilon: float) -> Tensor:
    scale = w[f"{name}.weight"] / (w[f"{name}.running_var"] + epsilon).sqrt()
    shift = w[f"{name}.bias"] - w[f"{name}.running_mean"] * scale
    return x * scale[:, None, None] + shift[:, None, None]


def layer_norm(w: Weights, name: str, x: Tensor, gates: Gates, epsilon: float) -> Tensor:
    """Over the last dimension. The mean is linear and stays; one over the deviation is held."""
    centered = x - x.mean(-1, keepdim=True)
    held = gates.hold(lambda: 1 / (centered.square().mean(-1, keepdim=True) + epsilon).sqrt())
    return centered * held * w[f"{name}.weight"] + w[f"{name}.bias"]


def rms_norm(w: Weights, name: str, x: Tensor, gates: Gates, epsilon: float) -> Tensor:
    held = gates.hold(lambda: 1 / (x.square().mean(-1, keepdim=True) + epsilon).sqrt())
    return x * held * w[f"{name}.weight"]


def _shaped_like(hard: Tensor, smooth: Tensor) -> Tensor:
    """The value of one and the gradient of the other."""
    return hard.detach() + (smooth - smooth.detach())


def gelu(z: Tensor, gates: Gates) -> Tensor:
    """Its gate is the probability that normal noise does not exceed z; softened, noise on z too."""

    def below(deviation: float) -> Tensor:
        return (1 + torch.erf(z / (deviation * math.sqrt(2)))) / 2

    return _gated(below, z, gates)


def silu(z: Tensor, gates: Gates) -> Tensor:
    return _gated(lambda deviation: 1 / (1 + torch.exp(-z / deviation)), z, gates)


def _gated(gate: Callable[[float], Tensor], z: Tensor, gates: Gates) -> Tensor:
    """z times a gate of a deviation, which noise on z makes larger than 1."""
    hard = z * gates.hold(lambda: gate(1))
    if gates.noise == 0:
        return hard
    return _shaped_like(hard, z * gates.hold(lambda: gate(math.sqrt(1 + gates.noise**2))))


def tanh(z: Tensor, gates: Gates) -> Tensor:
    """Its gate is the slope of the secant from 0."""
    return z * gates.hold(lambda: torch.tanh(z) / z)


def product(a: Tensor, b: Tensor, gates: Gates) -> Tensor:
    """Neither factor is a gate: half of it is a times b held, half is b times a held."""
    return (a * gates.hold(lambda: b) + b * gates.hold(lambda: a)) / 2


def attend(logits: Callable[[], Tensor], value: Tensor, gates: Gates) -> Tensor:
    """The weights are held, so nothing comes back from the logits: they are given unevaluated."""

    def weights(temperature: float = 1.0) -> Tensor:
        score = logits() / temperature
        score = torch.exp(score - score.amax(-1, keepdim=True))
        return score / score.sum(-1, keepdim=True)

    hard = gates.hold(weights) @ value
    if gates.attention == 1:
        return hard
    return _shaped_like(hard, gates.hold(lambda: weights(gates.attention)) @ value)


def heads(x: Tensor, count: int) -> Tensor:
    """(..., L, count * D) to (..., count, L, D)."""
    return x.unflatten(-1, (count, -1)).transpose(-2, -3)


def joined(x: Tensor) -> Tensor:
    """(..., count, L, D) to (..., L, count * D)."""
    return x.transpose(-2, -3).flatten(-2)
