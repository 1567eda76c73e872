"""A `TrainingLens` as a Lightning callback; Lightning is imported only if it is installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import nn

__all__ = ["callback"]


def _base() -> type:
    for name in ("lightning.pytorch", "pytorch_lightning"):
        try:
            found: type = import_module(name).Callback
        except ImportError:
            continue
        return found
    return object


def callback(
    record: Callable[[nn.Module, int], Any], every: int, model: Callable[[Any], nn.Module]
) -> Any:
    """See `TrainingLens.callback`; ``record(model, step)`` is what it calls."""
    if every < 1:
        raise ValueError(f"every must be at least 1 step, not {every}")

    class LensCallback(_base()):  # type: ignore[misc]
        """Records at the start, every ``every`` steps, and at the end."""

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self._record(trainer, pl_module)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any, **_: Any) -> None:
            if trainer.global_step % every == 0:
                self._record(trainer, pl_module)

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            self._record(trainer, pl_module)

        def _record(self, trainer: Any, pl_module: Any) -> None:
            if getattr(trainer, "is_global_zero", True):
                record(model(pl_module), int(trainer.global_step))

    return LensCallback()
