"""Running what is linear, keeping what an input's gradient needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_pullback.engine._torch import autocasts, is_watched
from captum_pullback.engine.backward import Call, run
from captum_pullback.engine.lean import LEAN
from captum_pullback.engine.state import State, detached

__all__ = ["run_lean"]


def run_lean(
    state: State, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run what is linear, keeping only what the gradient of its input needs."""
    x = args[0] if args else None
    if (
        type(x) is Tensor
        and x.requires_grad
        and torch.is_grad_enabled()
        and not autocasts(x)
        and not is_watched()
        and all(map(_is_fixed, args[1:]))
        and all(map(_is_fixed, kwargs.values()))
    ):
        held = LEAN[func](*args, **kwargs)
        if held is not None:
            rest = args[1:]
            return run(Call(lambda z: func(z, *rest, **kwargs), held), x)
        if func is F.linear:
            rest = tuple(map(detached, args[1:]))
            return func(x, *rest, **{key: detached(part) for key, part in kwargs.items()})
    return func(*args, **kwargs)


def _is_fixed(argument: Any) -> bool:
    """Whether no gradient with respect to inputs can pass through this argument."""
    if not isinstance(argument, Tensor) or not argument.requires_grad:
        return True
    # What isinstance asks of parameters takes longer.
    return type(argument) is nn.Parameter or isinstance(argument, nn.Parameter)
