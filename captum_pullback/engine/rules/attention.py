r"""The gate of attention: its weights are held, and the query and key paths carry nothing.

.. math::
    y = \mathrm{softmax}(l) \, v, \quad l = \frac{q k^\top}{\sqrt d} + m
    \qquad\Longrightarrow\qquad
    \bar v = \mathrm{softmax}(l / T)^\top \, \bar y

with T = 1 for the weights as they are. Source: arXiv 2507.22832 v5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_pullback.engine._torch import is_watched
from captum_pullback.engine.calls.backward import run
from captum_pullback.engine.calls.held import Call, Context, Held

__all__ = ["project", "scaled_dot_product_attention"]

_attention: Callable[..., Tensor] = F.scaled_dot_product_attention
# Numbers in one piece of work: attention weights of that many are held at once.
_PIECE = 2**24


def scaled_dot_product_attention(
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *_: Any,
    **__: Any,
) -> Held | None:
    """Attention in one call, of queries (..., L, E), keys (..., S, E) and values (..., S, Ev)."""
    if dropout_p:
        return None  # which weights are dropped is not told

    def run(
        operation: Callable[[Tensor], Tensor],
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
    ) -> tuple[Tensor]:
        given = (query, key, value, mask)
        if is_watched():
            return (_attention(*given, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa),)
        # Which kernel runs depends on who wants gradients, also after autocast's own casts: so
        # each wants what it wants outside.
        with torch.enable_grad():
            output = _attention(
                *map(_alone, given), 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
            )
        return (output.detach(),)

    def pull(
        context: Context, grad: Tensor, query: Tensor, key: Tensor, mask: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        pulled = pull_value(context, grad, query, key, mask)
        return None, None, pulled, None

    def pull_value(
        context: Context, grad: Tensor, query: Tensor, key: Tensor, mask: Tensor | None
    ) -> Tensor:
        heads = key.shape[-3] if enable_gqa else 0
        if enable_gqa:
            key = key.repeat_interleave(query.shape[-3] // heads, -3)
        factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        rows, columns = query.shape[-2], key.shape[-2]
        if is_causal:
            mask = torch.ones(rows, columns, dtype=torch.bool, device=query.device).tril()
        count = query[..., 0, 0].numel()
        size = max(1, _PIECE // max(1, count * columns))
        pieces = [slice(start, start + size) for start in range(0, rows, size)]

        def logits_of(piece: slice) -> Tensor:
            part = mask
            if mask is not None and mask.dim() > 1 and mask.shape[-2] == rows:
                part = mask[..., piece, :]
            return _logits(query[..., piece, :], key, part, factor)

        kept = [logits_of(piece) for piece in pieces] if len(pieces) == 1 else None
        # One temperature for all rows, whose spread it may be in units of.
        temperature = context.temperature_of_logits(kept or map(logits_of, pieces))
        total: Tensor | None = None
        for piece in pieces:
            logits = kept[0] if kept else logits_of(piece)
            weights = softened(logits, temperature).to(grad.dtype)
            share = weights.mT @ grad[..., piece, :]
            total = share if total is None else total + share
        if total is None:  # no rows
            return grad.new_zeros(value.shape)
        if enable_gqa:
            shape = (*total.shape[:-3], heads, -1, *total.shape[-2:])
            total = total.reshape(shape).sum(-3)
        return total.sum_to_size(value.shape)

    def push(
        context: Context, moved: tuple[Tensor, ...], query: Tensor, key: Tensor, mask: Tensor | None
    ) -> Tensor:
        return F.scaled_dot_product_attention(
            query, key, moved[2], mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
        )

    return Held(pull, (key, value, attn_mask), run, (0, 1, 3), neutral=1.0, push=push)


def project(x: Tensor, weight: Tensor, bias: Tensor | None, record: Any) -> tuple[Tensor, ...]:
    """Queries, keys and values of self-attention, from one projection.

    What `torch.nn.functional.multi_head_attention_forward` computes, bit for bit; but as queries
    and keys carry nothing, the way back is that of the values, a third of the projection.

    Args:
        x: Shape (..., E).
        weight: Of the projection, shape (3 E, E).
        bias: Of shape (3 E,).
        record: Of the softening.

    Returns:
        Three tensors of shape (..., E), of which those of queries and keys are leaves.
    """
    size = x.shape[-1]
    with torch.no_grad():
        packed = F.linear(x, weight, bias)
        packed = packed.unflatten(-1, (3, size))  # type: ignore[no-untyped-call]
        packed = packed.unsqueeze(0).transpose(0, -2).squeeze(-2).contiguous()
        query, key, value = packed[0], packed[1], packed[2]

    def pull(context: Context, grad: Tensor, weight: Tensor) -> tuple[Tensor, None]:
        return (grad.reshape(-1, size) @ weight).reshape(grad.shape), None

    held = Held(pull, (weight.detach()[2 * size :],), saves=(1,), linear="mixes")
    carried: Tensor = run(Call(lambda _: value, held, record=record), x)
    return query.requires_grad_(), key.requires_grad_(), carried


def _alone(tensor: Tensor | None) -> Tensor | None:
    """A tensor as a leaf of its own, that wants a gradient if the tensor does."""
    return None if tensor is None else tensor.detach().requires_grad_(tensor.requires_grad)


def _logits(query: Tensor, key: Tensor, mask: Tensor | None, factor: float) -> Tensor:
    logits = (query @ key.mT) * factor
    if mask is None:
        return logits
    if mask.dtype == torch.bool:
        return logits.masked_fill(~mask, -math.inf)
    return logits + mask


def softened(logits: Tensor, temperature: float | Tensor, dim: int = -1) -> Tensor:
    """``softmax(logits / T)``; rows that are masked altogether are 0, as PyTorch has it."""
    hidden = logits == -math.inf
    if isinstance(temperature, Tensor) or temperature != 1:
        # Less their maximum, so that at T = 0 none is as infinite as it.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        logits = logits - logits.amax(dim, keepdim=True).clamp_min(torch.finfo(logits.dtype).min)
        if isinstance(temperature, Tensor):
            logits = logits / temperature.clamp_min(1e-20)
        else:
            logits = logits / max(temperature, 1e-20)
    weights = torch.softmax(logits.masked_fill(hidden, -math.inf), dim)
    return weights.masked_fill(hidden, 0.0)
