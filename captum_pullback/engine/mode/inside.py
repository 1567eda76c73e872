"""Operations that are written in Python, and looked into."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_pullback.engine._torch import autocasts, is_watched, project_packed, without_override
from captum_pullback.engine.mode.leaning import is_fixed
from captum_pullback.engine.mode.state import innermost
from captum_pullback.engine.rules.attention import project

__all__ = ["ATTENTION", "INSIDE", "LEAN_ATTENTION"]

ATTENTION = F.multi_head_attention_forward
# Operations that are written in Python, and looked into.
INSIDE: dict[Any, Any] = {
    function: without_override(function) for function in (ATTENTION, F.local_response_norm)
}


def _project(q: Tensor, k: Tensor, v: Tensor, w: Tensor, b: Tensor | None = None) -> Any:
    """The projection of attention, in a third of the way back where it is self-attention."""
    state = innermost()
    if (
        state is not None
        and q is k is v
        and type(q) is Tensor
        and q.requires_grad
        and torch.is_grad_enabled()
        and not is_watched()
        and not autocasts(q)
        and is_fixed(w)
        and is_fixed(b)
    ):
        return project(q, w, b, state.record)
    return project_packed(q, k, v, w, b)


LEAN_ATTENTION = without_override(ATTENTION, _in_projection_packed=_project)
