"""torchvision's Swin transformers, of both versions, window by window."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from references.gates import (
    Gates,
    Weights,
    attend,
    gelu,
    heads,
    joined,
    layer_norm,
    linear,
    patches,
)

EPSILON = 1e-5


def swin(
    w: Weights,
    x: Tensor,
    gates: Gates,
    *,
    depths: Sequence[int],
    n_heads: Sequence[int],
    window: int,
    version: int,
) -> Tensor:
    def norm(name: str, x: Tensor) -> Tensor:
        return layer_norm(w, name, x, gates, EPSILON)

    x = norm("features.0.2", patches(w, "features.0.0", x))
    for stage, depth in enumerate(depths):
        for block in range(depth):
            name = f"features.{2 * stage + 1}.{block}"
            shift = window // 2 if block % 2 else 0

            def attention(x: Tensor, name: str = name, shift: int = shift, n: int = n_heads[stage]):
                return _attention(w, f"{name}.attn", x, gates, n, window, shift, version)

            def mlp(x: Tensor, name: str = name) -> Tensor:
                return linear(w, f"{name}.mlp.3", gelu(linear(w, f"{name}.mlp.0", x), gates))

            if version == 1:
                x = x + attention(norm(f"{name}.norm1", x))
                x = x + mlp(norm(f"{name}.norm2", x))
            else:
                x = x + norm(f"{name}.norm1", attention(x))
                x = x + norm(f"{name}.norm2", mlp(x))
        if stage + 1 < len(depths):
            name = f"features.{2 * stage + 2}"
            x = _four_into_one(x)
            if version == 1:
                x = linear(w, f"{name}.reduction", norm(f"{name}.norm", x))
            else:
                x = norm(f"{name}.norm", linear(w, f"{name}.reduction", x))
    return linear(w, "head", norm("norm", x).mean((1, 2)))


def _four_into_one(x: Tensor) -> Tensor:
    """The four tokens of a square, in the order of the paper: down before right; zeros outside."""
    n, height, width, c = x.shape
    square = x.new_zeros(n, height + height % 2, width + width % 2, c)
    square[:, :height, :width] = x
    return torch.cat([square[:, down::2, right::2] for right in (0, 1) for down in (0, 1)], -1)


def _attention(
    w: Weights,
    name: str,
    x: Tensor,
    gates: Gates,
    n_heads: int,
    window: int,
    shift: int,
    version: int,
) -> Tensor:
    n, height, width, c = x.shape
    rows, columns = (_windows(size, window, shift) for size in (height, width))
    padded = x.new_zeros(n, *(-(-size // window) * window for size in (height, width)), c)
    padded[:, :height, :width] = x
    bias = w[f"{name}.qkv.bias"].clone()
    if version == 2:
        bias[c : 2 * c] = 0  # cosine attention has keys without a bias
    q, k, v = (padded @ w[f"{name}.qkv.weight"].T + bias).chunk(3, -1)
    table = _position_bias(w, name, window, n_heads, version)
    result = torch.zeros_like(padded)
    for down, down_parts in rows:
        for right, right_parts in columns:
            part = (down_parts[:, None] * 2 + right_parts).flatten()
            apart = (part[:, None] != part) * -100.0

            def inside(t: Tensor, down: Tensor = down, right: Tensor = right) -> Tensor:
                return heads(t[:, down[:, None], right].flatten(1, 2), n_heads)

            def logits(inside=inside, apart: Tensor = apart) -> Tensor:
                query, key = inside(q), inside(k)
                if version == 1:
                    scores = query @ key.mT / math.sqrt(c / n_heads)
                else:
                    scores = _unit(query) @ _unit(key).mT
                    scores = scores * w[f"{name}.logit_scale"].clamp(max=math.log(100)).exp()
                return scores + table + apart

            y = joined(attend(logits, inside(v), gates))
            result[:, down[:, None], right] = y.unflatten(1, (window, window))
    return linear(w, f"{name}.proj", result)[:, :height, :width]


def _unit(x: Tensor) -> Tensor:
    """Of length 1; a padding token's key is zero, and stays so."""
    return x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def _windows(size: int, window: int, shift: int) -> list[tuple[Tensor, Tensor]]:
    """Per window along one axis: the positions in it, and which of them lie across the edge."""
    padded = -(-size // window) * window
    if window >= padded:
        shift = 0
    positions = torch.arange(padded).roll(-shift)
    across = torch.arange(padded) >= padded - shift
    return list(zip(positions.split(window), across.split(window), strict=True))


def _position_bias(w: Weights, name: str, window: int, n_heads: int, version: int) -> Tensor:
    """One number for each head and each offset between two tokens of a window."""
    if version == 1:
        offsets = w[f"{name}.relative_position_bias_table"]
    else:
        z = linear(w, f"{name}.cpb_mlp.0", w[f"{name}.relative_coords_table"])
        offsets = 16 * torch.sigmoid(linear(w, f"{name}.cpb_mlp.2", z.clamp(min=0)))
    square = offsets.reshape(2 * window - 1, 2 * window - 1, n_heads)
    at = torch.arange(window)
    offset = (at[:, None] - at) + window - 1
    table = square[offset[:, None, :, None], offset[None, :, None, :]]
    return table.reshape(window**2, window**2, n_heads).permute(2, 0, 1)
