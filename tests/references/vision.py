"""torchvision's ViT, ConvNeXt and EfficientNet."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from references.gates import (
    Gates,
    Weights,
    attend,
    batch_norm,
    conv,
    gelu,
    heads,
    joined,
    layer_norm,
    linear,
    patches,
    silu,
    tanh,
)

EPSILON = 1e-6  # of the layer norms of ViT and ConvNeXt


def _blocks(w: Weights, prefix: str) -> Sequence[int]:
    """The numbers that follow a prefix in the names of parameters."""
    return sorted({int(n[len(prefix) :].split(".")[0]) for n in w if n.startswith(prefix)})


def vit(w: Weights, x: Tensor, gates: Gates, *, n_heads: int) -> Tensor:
    x = patches(w, "conv_proj", x).flatten(1, 2)
    x = torch.cat([w["class_token"].expand(len(x), -1, -1), x], 1) + w["encoder.pos_embedding"]
    for block in _blocks(w, "encoder.layers.encoder_layer_"):
        name = f"encoder.layers.encoder_layer_{block}"
        y = layer_norm(w, f"{name}.ln_1", x, gates, EPSILON)
        attention = f"{name}.self_attention"
        weight, bias = w[f"{attention}.in_proj_weight"], w[f"{attention}.in_proj_bias"]
        q, k, v = (heads(part, n_heads) for part in (y @ weight.T + bias).chunk(3, -1))
        y = attend(lambda q=q, k=k: q @ k.mT / math.sqrt(q.shape[-1]), v, gates)
        x = x + linear(w, f"{attention}.out_proj", joined(y))
        y = layer_norm(w, f"{name}.ln_2", x, gates, EPSILON)
        x = x + linear(w, f"{name}.mlp.3", gelu(linear(w, f"{name}.mlp.0", y), gates))
    x = layer_norm(w, "encoder.ln", x, gates, EPSILON)[:, 0]
    if "heads.pre_logits.weight" in w:
        x = tanh(linear(w, "heads.pre_logits", x), gates)
    return linear(w, "heads.head", x)


def convnext(w: Weights, x: Tensor, gates: Gates) -> Tensor:
    x = patches(w, "features.0.0", x)
    x = layer_norm(w, "features.0.1", x, gates, EPSILON).permute(0, 3, 1, 2)
    for stage in _blocks(w, "features.")[1:]:
        name = f"features.{stage}"
        if f"{name}.1.weight" in w:  # half as large
            x = layer_norm(w, f"{name}.0", x.permute(0, 2, 3, 1), gates, EPSILON)
            x = patches(w, f"{name}.1", x.permute(0, 3, 1, 2)).permute(0, 3, 1, 2)
            continue
        for block in _blocks(w, f"{name}."):
            within = f"{name}.{block}.block"
            y = conv(w, f"{within}.0", x).permute(0, 2, 3, 1)
            y = layer_norm(w, f"{within}.2", y, gates, EPSILON)
            y = linear(w, f"{within}.5", gelu(linear(w, f"{within}.3", y), gates))
            x = x + w[f"{name}.{block}.layer_scale"] * y.permute(0, 3, 1, 2)
    x = layer_norm(w, "classifier.0", x.mean((2, 3)), gates, EPSILON)
    return linear(w, "classifier.2", x)


def efficientnet(w: Weights, x: Tensor, gates: Gates, *, strides: Sequence[int]) -> Tensor:
    """strides: of each stage's first block. What a block holds is read from its parameters."""

    def unit(name: str, x: Tensor, stride: int = 1) -> Tensor:
        return batch_norm(w, f"{name}.1", conv(w, f"{name}.0", x, stride), 1e-5)

    last = len(strides) + 1
    x = silu(unit("features.0", x, 2), gates)
    for stage, first in enumerate(strides, 1):
        for block in _blocks(w, f"features.{stage}."):
            name = f"features.{stage}.{block}.block"
            stride, y = (first if block == 0 else 1), x
            for place in itertools.count():
                part = f"{name}.{place}"
                if f"{part}.fc1.weight" in w:
                    y = _squeeze_and_excite(w, part, y, gates)
                    continue
                if f"{part}.0.weight" not in w:
                    break
                y = unit(part, y, stride if w[f"{part}.0.weight"].shape[-1] > 1 else 1)
                # The last of two or more parts is a plain projection.
                if place == 0 or any(n.startswith(f"{name}.{place + 1}.") for n in w):
                    y = silu(y, gates)
            x = x + y if y.shape == x.shape and stride == 1 else y
    x = silu(unit(f"features.{last}", x), gates)
    return linear(w, "classifier.1", x.mean((2, 3)))


def _squeeze_and_excite(w: Weights, name: str, x: Tensor, gates: Gates) -> Tensor:
    def gate() -> Tensor:
        z = conv(w, f"{name}.fc1", x.mean((2, 3), keepdim=True))
        return torch.sigmoid(conv(w, f"{name}.fc2", z * torch.sigmoid(z)))

    return x * gates.hold(gate)
