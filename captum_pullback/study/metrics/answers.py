"""A network's outputs on perturbed inputs, computed once for all methods and metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from captum.metrics import infidelity, infidelity_perturb_func_decorator
from torch import Tensor

__all__ = ["Answers"]


@dataclass(frozen=True)
class Answers:
    """Perturbed copies of one input, with the network's outputs for it and for them.

    Attributes:
        inputs: (1, C, H, W).
        perturbed: (n, C, H, W).
        score: The network's output for ``inputs``, (1, classes).
        scores: Its output for ``perturbed``, (n, classes).
    """

    inputs: Tensor
    perturbed: Tensor
    score: Tensor
    scores: Tensor

    @classmethod
    @torch.no_grad()
    def ask(
        cls, model: Callable[[Tensor], Tensor], inputs: Tensor, perturbed: Tensor, at_once: int
    ) -> Answers:
        """Runs the network on at most so many perturbed inputs at once."""
        scores = torch.cat([model(part) for part in torch.split(perturbed, at_once)])
        return cls(inputs, perturbed, model(inputs), scores)

    def infidelity(
        self,
        attributions: Tensor,
        target: int,
        multiplies_by_inputs: bool,
        baseline: Tensor,
        normalize: bool,
    ) -> float:
        """Captum's infidelity of an attribution (1, C, H, W) on these perturbations."""

        def perturb(_: Tensor, __: Any = None) -> Tensor:
            return self.perturbed

        def forward(inputs: Tensor) -> Tensor:
            return self.scores if inputs is self.perturbed else self.score

        decorate = infidelity_perturb_func_decorator(multiplies_by_inputs)
        return float(
            infidelity(
                forward,
                decorate(perturb),
                self.inputs,
                attributions,
                baselines=baseline,
                target=target,
                n_perturb_samples=len(self.perturbed),
                normalize=normalize,
            )
        )
