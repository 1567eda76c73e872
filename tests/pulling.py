"""A pullback by way of the engine itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from captum_pullback import SEMANTIC, soften


def pulled(model: nn.Module, x: Tensor, target: Any = 1, **given: Any) -> Tensor:
    """The pullback by way of `soften`, held at temperature 0 unless told otherwise."""
    x = x.detach().clone().requires_grad_()
    with soften(model, **{"temperature": 0, "rules": SEMANTIC, **given}):
        return torch.autograd.grad(model(x)[:, target].sum(), x)[0]
