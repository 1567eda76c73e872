"""The examples that a lens watches, and how a model is run on them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from captum_pullback.engine.models import named_modules

__all__ = ["Watched", "device_of", "in_eval_mode"]


@dataclass(frozen=True)
class Watched:
    """Some examples, on the CPU.

    Attributes:
        inputs: Shape (N, ...).
        labels: Their classes, (N,), integers.
        batch_size: Examples in one forward pass.

    Raises:
        ValueError: Inputs and labels that do not fit each other.
    """

    inputs: Tensor
    labels: Tensor
    batch_size: int

    def __post_init__(self) -> None:
        if self.labels.shape != self.inputs.shape[:1] or not len(self.labels):
            raise ValueError(
                f"{tuple(self.labels.shape)} labels for inputs of shape "
                f"{tuple(self.inputs.shape)}: give one for each"
            )

    @property
    def description(self) -> dict[str, Any]:
        """Identifies these examples."""
        digest = hashlib.sha256(self.inputs.contiguous().numpy().tobytes()).hexdigest()
        return {"inputs": digest, "labels": self.labels.tolist()}

    def batches(self) -> Iterator[slice]:
        """Yield the examples in batches."""
        for start in range(0, len(self.labels), self.batch_size):
            yield slice(start, start + self.batch_size)

    def on(self, device: torch.device) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield each batch, with its inputs and labels on a device."""
        for batch in self.batches():
            yield batch, self.inputs[batch].to(device), self.labels[batch].to(device)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's parameters; the CPU for a model without any."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Put every module in eval mode for a while, and then back in its own mode."""
    modes = [(module, module.training) for _, module in named_modules(model)]
    try:
        model.eval()  # a subclass's own, which may fail halfway
        yield
    finally:
        for module, training in modes:
            module.training = training
