"""The transpose of a backward pass: what goes forward along a derivative, or a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Tangent", "tangents_of"]


class Tangent:
    """The linear map whose transpose is a backward pass.

    Args:
        pull: From the output's gradient, linearly, to those of the inputs; None where an input
            gets none. Autograd must be able to go through it.
        output: Of the output's shape and type.
    """

    def __init__(self, pull: Callable[[Tensor], Sequence[Tensor | None]], output: Tensor) -> None:
        with torch.enable_grad():
            self._gradient = torch.zeros_like(output).requires_grad_()
            self._pulled = pull(self._gradient)

    def __call__(self, vectors: Sequence[Any]) -> Tensor:
        """What comes of these, one for each input."""
        pairs = [
            (part, vector.to(part))
            for part, vector in zip(self._pulled, vectors, strict=True)
            if part is not None and part.requires_grad
        ]
        if not pairs:
            return torch.zeros_like(self._gradient)
        parts, given = zip(*pairs, strict=True)
        (pushed,) = torch.autograd.grad(
            parts, self._gradient, given, retain_graph=True, allow_unused=True
        )
        return torch.zeros_like(self._gradient) if pushed is None else pushed


def tangents_of(outputs: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tangent]:
    """Along autograd's derivatives of some outputs, from the leaves that they are made of."""

    def pull_of(output: Tensor) -> Callable[[Tensor], Sequence[Tensor | None]]:
        def pull(gradient: Tensor) -> Sequence[Tensor | None]:
            return torch.autograd.grad(
                output, leaves, gradient, create_graph=True, allow_unused=True
            )

        return pull

    return [Tangent(pull_of(output), output.detach()) for output in outputs]
