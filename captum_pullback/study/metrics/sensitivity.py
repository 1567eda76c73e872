"""How much an attribution changes between an input and its neighbors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from captum.metrics import sensitivity_max
from torch import Tensor

__all__ = ["max_sensitivity"]


def max_sensitivity(
    attribute: Callable[[Any, Any], Tensor], inputs: Tensor, base: Tensor, near: Tensor, target: int
) -> float:
    """Captum's max-sensitivity at one input, over these neighbors.

    Args:
        attribute: Takes inputs and a target, and returns attributions.
        inputs: (1, C, H, W).
        base: The attribution at ``inputs``, which is not computed again.
        near: The neighbors, (n, C, H, W).
        target: The class.
    """

    def explain(given: Any, target: int) -> Any:
        return (base,) if isinstance(given, tuple) else attribute(given, target)

    found = sensitivity_max(
        explain,
        inputs,
        perturb_func=lambda _: near,
        n_perturb_samples=len(near),
        max_examples_per_batch=len(near),
        target=target,
    )
    return float(found)
