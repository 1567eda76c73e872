"""Choices by a mask: linear where the mask is a constant, piecewise where the input decides it.

Masks carry no gradients, so autograd's graph does not tell where they come from: those that
comparisons make of what carries gradients are noted as they are made.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from captum_pullback.engine._torch import base, is_view
from captum_pullback.engine.names import spellings

__all__ = ["CHOICES", "COMPARISONS", "Masks"]

_COMPARISONS = (
    "lt", "le", "gt", "ge", "eq", "ne", "less", "less_equal", "greater", "greater_equal",
    "not_equal", "isclose", "isnan", "isinf", "isfinite", "signbit", "logical_and",
    "logical_or", "logical_xor", "logical_not", "bitwise_and", "bitwise_or", "bitwise_xor",
    "bitwise_not", "any", "all", "bool", "argmax", "argmin", "argsort", "bucketize",
    "searchsorted",
)  # fmt: skip
_OPERATORS = ("lt", "le", "gt", "ge", "eq", "ne", "and", "or", "xor", "invert")

#: What makes a mask, or a mask of masks.
COMPARISONS: dict[Any, None] = {
    **{function: None for name in _COMPARISONS for function in spellings(name)},
    **{getattr(Tensor, f"__{name}__"): None for name in _OPERATORS},
}

#: What chooses by a mask: its name, and where among its arguments the mask is.
CHOICES: dict[Any, tuple[str, int]] = {
    function: (name.strip("_"), place)
    for name, place in {
        "masked_fill": 1, "masked_fill_": 1, "masked_scatter": 1, "masked_scatter_": 1,
        "masked_select": 1, "where": 0,
    }.items()
    for function in spellings(name)
}  # fmt: skip
# The method's first argument is not the mask.
CHOICES[Tensor.where] = ("where", 1)


class Masks:
    """The masks that were computed from what carries gradients, as long as they live."""

    def __init__(self) -> None:
        self._known = WeakTensorKeyDictionary()

    def add(self, mask: Any) -> None:
        """Note a mask."""
        if isinstance(mask, Tensor):
            self._known[mask] = True

    def __contains__(self, mask: Any) -> bool:
        """Whether it, or what it is a view of, was noted."""
        if not isinstance(mask, Tensor) or not len(self._known):
            return False
        return mask in self._known or (is_view(mask) and base(mask) in self._known)

    def any(self, tensors: Iterable[Any]) -> bool:
        """Whether one of these was noted."""
        return any(tensor in self for tensor in tensors)
