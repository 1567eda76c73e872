"""Hugging Face's BERT, as a classifier of sentences, and Llama, by embedded tokens."""

from __future__ import annotations

import itertools
import math

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
    product,
    rms_norm,
    silu,
    tanh,
)


def bert(w: Weights, x: Tensor, gates: Gates, *, n_heads: int) -> Tensor:
    """Every token is seen and is of type 0."""

    def norm(name: str, x: Tensor) -> Tensor:
        return layer_norm(w, f"{name}.LayerNorm", x, gates, 1e-12)

    embeddings = "bert.embeddings"
    x = x + w[f"{embeddings}.position_embeddings.weight"][: x.shape[1]]
    x = norm(embeddings, x + w[f"{embeddings}.token_type_embeddings.weight"][0])
    for block in itertools.count():
        name = f"bert.encoder.layer.{block}"
        if f"{name}.output.dense.weight" not in w:
            break
        q, k, v = (
            heads(linear(w, f"{name}.attention.self.{part}", x), n_heads)
            for part in ("query", "key", "value")
        )
        y = attend(lambda q=q, k=k: q @ k.mT / math.sqrt(q.shape[-1]), v, gates)
        y = linear(w, f"{name}.attention.output.dense", joined(y))
        x = norm(f"{name}.attention.output", x + y)
        y = gelu(linear(w, f"{name}.intermediate.dense", x), gates)
        x = norm(f"{name}.output", x + linear(w, f"{name}.output.dense", y))
    return linear(w, "classifier", tanh(linear(w, "bert.pooler.dense", x[:, 0]), gates))


def llama(
    w: Weights, x: Tensor, gates: Gates, *, n_heads: int, n_key_heads: int, base: float = 10_000.0
) -> Tensor:
    """The scores of the token that follows the last one."""
    length = x.shape[1]
    later = torch.ones(length, length, dtype=torch.bool).triu(1)
    for block in itertools.count():
        name = f"model.layers.{block}"
        if f"{name}.mlp.down_proj.weight" not in w:
            break
        y = rms_norm(w, f"{name}.input_layernorm", x, gates, 1e-6)
        q = heads(linear(w, f"{name}.self_attn.q_proj", y), n_heads)
        k, v = (
            heads(linear(w, f"{name}.self_attn.{part}_proj", y), n_key_heads)
            # One head of keys and values serves several of queries.
            .repeat_interleave(n_heads // n_key_heads, 1)
            for part in "kv"
        )

        def logits(q: Tensor = q, k: Tensor = k) -> Tensor:
            scores = _turned(q, base) @ _turned(k, base).mT / math.sqrt(q.shape[-1])
            return scores.masked_fill(later, -math.inf)

        x = x + linear(w, f"{name}.self_attn.o_proj", joined(attend(logits, v, gates)))
        y = rms_norm(w, f"{name}.post_attention_layernorm", x, gates, 1e-6)
        gate = silu(linear(w, f"{name}.mlp.gate_proj", y), gates)
        y = product(gate, linear(w, f"{name}.mlp.up_proj", y), gates)
        x = x + linear(w, f"{name}.mlp.down_proj", y)
    return linear(w, "lm_head", rms_norm(w, "model.norm", x, gates, 1e-6)[:, -1])


def _turned(x: Tensor, base: float) -> Tensor:
    """Rotary positions: pairs of entries as complex numbers, turned by position times frequency."""
    half = x.shape[-1] // 2
    frequency = base ** -(torch.arange(half, dtype=x.dtype) / half)
    angle = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] * frequency
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(
        torch.ones_like(angle), angle
    )
    return torch.cat([turned.real, turned.imag], -1)
