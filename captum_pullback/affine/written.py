"""Which tensor a call writes into, told before it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_pullback.engine.names import NONLINEAR, read_call, split_call

__all__ = ["NO_WRITES", "draws_numbers", "written_by"]

_GRAD_FN: Any = Tensor.grad_fn
#: Methods with a name like that of an operation in place, which change no numbers; and what a
#: checkpoint reads of a tensor of its own.
NO_WRITES = frozenset(
    (
        Tensor.requires_grad_,
        Tensor.share_memory_,
        Tensor.retain_grad,
        Tensor.register_hook,
        _GRAD_FN.__get__,
    )
)

_OPERATORS = frozenset(
    f"__i{name}__"
    for name in ("add", "sub", "mul", "matmul", "div", "truediv", "floordiv", "mod", "pow", "and",
                 "or", "xor", "lshift", "rshift")
) | {"__setitem__"}  # fmt: skip
_RANDOM = frozenset(
    f"{name}_"
    for name in ("bernoulli", "cauchy", "exponential", "geometric", "log_normal", "normal",
                 "random", "uniform")
)  # fmt: skip


def _name(func: Callable[..., Any]) -> str:
    return getattr(func, "__name__", "").split(".")[0]  # relu_ for aten.relu_.default


def written_by(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor | None:
    """The tensor that a call writes into; None if it makes new ones.

    Args:
        func: A function as a function mode is shown it.
        args: Its arguments.
        kwargs: Its keyword arguments.
    """
    target = kwargs.get("out")
    name = _name(func)
    operation = NONLINEAR.get(func)
    if operation is not None:
        x, rest, named = split_call(args, kwargs)
        if read_call(operation, rest, named)[3]:
            target = x
    elif name in _OPERATORS or (name.endswith("_") and not name.endswith("__")):
        target = args[0] if args else kwargs.get("self", kwargs.get("input"))
    return target if isinstance(target, torch.Tensor) else None


def draws_numbers(func: Callable[..., Any]) -> bool:
    """Whether a function fills a tensor with random numbers."""
    return _name(func) in _RANDOM
