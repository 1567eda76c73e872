"""Seeing each operation of a thread before it runs, and changing nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.overrides import TorchFunctionMode

__all__ = ["Observer"]


class Observer(TorchFunctionMode):
    """A function mode that looks on: subclasses say at what, in `observe`."""

    def observe(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """See an operation that is about to run; what is raised here stops it."""
        raise NotImplementedError

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        self.observe(func, args, kwargs)
        return func(*args, **kwargs)
