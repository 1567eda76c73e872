"""Running what is linear, keeping what an input's gradient needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_pullback.engine._torch import is_transformed
from captum_pullback.engine.calls.backward import following, run, run_quick
from captum_pullback.engine.calls.held import Call
from captum_pullback.engine.mode.lean import LEAN
from captum_pullback.engine.mode.state import State, detached

__all__ = ["is_fixed", "run_lean"]


def run_lean(
    state: State, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run what is linear, keeping only what the gradient of its input needs.

    No compiler is at work: who calls this has asked.
    """
    x = args[0] if args else None
    if not (
        state.lean
        and type(x) is Tensor
        and x.requires_grad
        and torch.is_grad_enabled()
        and not is_transformed()
        and (x.is_meta or not torch.is_autocast_enabled(x.device.type))
    ):
        return func(*args, **kwargs)
    rest = args[1:]
    for part in (*rest, *kwargs.values()):
        if type(part) not in _FIXED and not is_fixed(part):
            return func(*args, **kwargs)
    if func is F.linear and len(rest) == 2 and rest[1] is not None and x.dim() == 2:
        return func(x, rest[0].detach(), rest[1].detach())
    held = LEAN[func](*args, **kwargs)
    if held is not None:
        call = Call(lambda z: func(z, *rest, **kwargs), held)
        return run(call, x) if following.get() is not None else run_quick(call, x)
    if func is F.linear:
        named = {key: detached(part) for key, part in kwargs.items()} if kwargs else kwargs
        return func(x, *map(detached, rest), **named)
    return func(*args, **kwargs)


# Types of arguments through which no gradient with respect to inputs can pass.
_FIXED = frozenset((nn.Parameter, type(None), bool, int, float, str, tuple))


def is_fixed(argument: Any) -> bool:
    """Whether no gradient with respect to inputs can pass through this argument."""
    return (
        not isinstance(argument, Tensor)
        or not argument.requires_grad
        or isinstance(argument, nn.Parameter)
    )
