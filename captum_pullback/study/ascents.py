"""Ascents of the pullback from photographs: in which ways, and their steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_pullback.ascent import AscentStep, PullbackAscent
from captum_pullback.study.methods import at_once, pixel_bounds
from captum_pullback.zoo.networks import Network

__all__ = ["Ways", "trace"]


@dataclass(frozen=True)
class Ways:
    """How to ascend: see `PullbackAscent`, of which lengths are the relative ones.

    Attributes:
        temperature: of the pullback.
        pool_temperature: of its max pooling; None follows ``temperature``.
        steps: how many.
        step_size: a fraction of the photograph's norm.
        radius: likewise.
        bounded: whether pixels stay between black and white.
        compare: whether to go along the plain gradient besides.
    """

    temperature: float
    pool_temperature: float | None = None
    steps: int = 5
    step_size: float = 0.1
    radius: float = 0.5
    bounded: bool = True
    compare: bool = False

    def ascents(self, network: Network) -> dict[str, PullbackAscent]:
        """For each way's title, what ascends."""
        title = f"along the excitation pullback, T = {self.temperature:.3g}"
        temperatures = {title: (self.temperature, self.pool_temperature)}
        if self.compare:
            temperatures["along the plain gradient"] = (0.0, None)
        return {
            title: PullbackAscent(
                network.model,
                temperature,
                pool_temperature=pool_temperature,
                steps=self.steps,
                step_size=self.step_size,
                radius=self.radius,
                relative=True,
                bounds=pixel_bounds(network) if self.bounded else None,
            )
            for title, (temperature, pool_temperature) in temperatures.items()
        }


def trace(
    network: Network, ascent: PullbackAscent, inputs: Tensor, targets: Sequence[int]
) -> list[AscentStep[Tensor]]:
    """The ascents from one photograph to several targets, as many at once as is wise.

    Args:
        network: whose ``input_size`` says how many that is.
        ascent: of its model.
        inputs: (C, H, W), on the network's device.
        targets: K classes.

    Returns:
        Its steps, each for all K targets, on the CPU.
    """
    chunks = []
    for chunk in torch.split(torch.tensor(targets), at_once(network)):
        copies = inputs.expand(len(chunk), *inputs.shape)
        chunks.append(ascent.trace(copies, chunk.to(inputs.device)))
    return [
        AscentStep(parts[0].step, *(
            torch.cat([getattr(part, name).float().cpu() for part in parts])
            for name in ("inputs", "score", "step_norm", "distance")
        ))
        for parts in zip(*chunks, strict=True)
    ]  # fmt: skip
