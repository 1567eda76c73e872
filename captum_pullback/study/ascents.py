"""Ascents from photographs: their settings and their steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_pullback.ascent import AscentStep, PullbackAscent
from captum_pullback.engine.softness import Softness
from captum_pullback.study.methods import at_once
from captum_pullback.study.softness import temperature_words
from captum_pullback.zoo.network import Network, pixel_bounds

__all__ = ["PLAIN", "Climb", "Ways", "trace"]

PLAIN = Softness(0.0, rules={})
"""No rules: the plain gradient."""


@dataclass(frozen=True)
class Climb:
    """The settings of a `PullbackAscent` with ``relative=True``.

    Attributes:
        steps: How many.
        step_size: A fraction of the photograph's norm.
        radius: Likewise.
        bounded: Whether pixels stay between black and white.
        compare: Whether to ascend along the plain gradient, too.
    """

    steps: int = 5
    step_size: float = 0.1
    radius: float = 0.5
    bounded: bool = True
    compare: bool = False

    def ascent(self, network: Network, softness: Softness) -> PullbackAscent:
        """Make the ascent of a network whose gates are this soft."""
        return PullbackAscent(
            network.model,
            softness.temperature,
            pool_temperature=softness.pool_temperature,
            rules=softness.rules,
            steps=self.steps,
            step_size=self.step_size,
            radius=self.radius,
            relative=True,
            bounds=pixel_bounds(network) if self.bounded else None,
        )


@dataclass(frozen=True)
class Ways(Climb, Softness):
    """How soft the gates are, and how to ascend."""

    def ascents(self, network: Network) -> dict[str, PullbackAscent]:
        """Return, for each method's title, what ascends."""
        title = f"along the excitation pullback, T = {temperature_words(self.temperature)}"
        ways: dict[str, Softness] = {title: self}
        if self.compare:
            ways["along the plain gradient"] = PLAIN
        return {title: self.ascent(network, way) for title, way in ways.items()}


def trace(
    network: Network, ascent: PullbackAscent, inputs: Tensor, targets: Sequence[int]
) -> list[AscentStep[Tensor]]:
    """Run the ascents from one photograph toward several targets, several at once.

    Args:
        network: Whose ``input_size`` says how many that is.
        ascent: Of its model.
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
