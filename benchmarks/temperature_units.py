"""Units in which a temperature may be given: the candidates of the study."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from captum_pullback import Spread
from captum_pullback.engine.spread import _rows


@dataclass(frozen=True)
class Measured(Spread):
    """A temperature in units of something else than the standard deviation of a gate's input.

    All are scaled so that they are 1 for an input that is standard normal.

    Attributes:
        measure: Its name in `MEASURES`.
    """

    measure: str = "root mean square"

    def of(
        self,
        z: Tensor,
        batch: int | None = None,
        *,
        compared: bool = False,
        spare: Tensor | None = None,
    ) -> float | Tensor:
        """The temperature for an input z of shape (N, ...)."""
        z = z.detach()
        if compared or (z.dim() == 3 and batch == z.shape[1] and batch not in (1, z.shape[0])):
            return super().of(z, batch, compared=compared, spare=spare)
        rows = _rows(z, batch)
        found = self.scale * MEASURES[self.measure](rows)
        found = torch.where(found.isfinite(), found, 0.0)
        return found.view(len(rows), -1, *[1] * (rows.dim() - 2)) if rows.dim() > 1 else 0.0


@dataclass(frozen=True)
class Gamma(Spread):
    """In units of BatchNorm's own weight where a gate follows one, else of its mean output.

    Attributes:
        normalized: By BatchNorm, its last output and its weight (C).
    """

    normalized: dict[nn.Module, tuple[Tensor, Tensor]] = field(default_factory=dict, compare=False)

    def watch(self, model: nn.Module) -> Gamma:
        """Keep what every BatchNorm of a model returns."""
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_hook(self._keep)
        return self

    def _keep(self, module: nn.Module, _: Any, output: Tensor) -> None:
        assert isinstance(module.weight, Tensor)
        self.normalized[module] = output.detach(), module.weight.detach()

    def early(self, output: Tensor, batch: int | None = None) -> Spread:
        """The output of a gate does not tell what came before it."""
        return self

    def of(
        self,
        z: Tensor,
        batch: int | None = None,
        *,
        compared: bool = False,
        spare: Tensor | None = None,
    ) -> float | Tensor:
        """The temperature for an input z of shape (N, ...)."""
        for output, weight in () if compared else self.normalized.values():
            # What is kept cannot share memory with anything but itself.
            if output.data_ptr() == z.data_ptr() and output.shape == z.shape:
                return self.scale * weight.abs().view(-1, 1, 1)
        return super().of(z, batch, compared=compared, spare=spare)


def _flat(rows: Tensor) -> Tensor:
    return rows.flatten(1)


def _mills(rows: Tensor) -> Tensor:
    """Of a normal input: the deviation times Mills' ratio at the mean, over that at 0."""
    mean, deviation = _flat(rows).mean(1), _flat(rows).std(1, correction=0)
    m = (mean / deviation).clamp(-6, 6).double()
    ratio: Tensor = 2 * torch.special.ndtr(m) / torch.exp(-m * m / 2)
    return deviation * ratio.clamp(max=4).to(deviation)


def _excited(rows: Tensor) -> Tensor:
    """The mean of what is above 0."""
    flat = _flat(rows)
    return flat.clamp(min=0).sum(1) / (flat > 0).sum(1) * math.sqrt(math.pi / 2)


def _overlap(rows: Tensor) -> Tensor:
    """The lesser of the means of what is above 0 and of what is below, each over all."""
    flat = _flat(rows)
    sides = [flat.clamp(min=0).mean(1), -flat.clamp(max=0).mean(1)]
    return torch.minimum(*sides) * math.sqrt(2 * math.pi)


def _sides(rows: Tensor) -> Tensor:
    """The lesser of the means among what is above 0 and among what is below."""
    flat = _flat(rows)
    above, below = flat.clamp(min=0).sum(1), -flat.clamp(max=0).sum(1)
    found = torch.minimum(above / (flat > 0).sum(1), below / (flat < 0).sum(1))
    return found * math.sqrt(math.pi / 2)


def _channels(rows: Tensor) -> Tensor:
    """The deviation of each channel."""
    if rows.dim() < 3:
        return _flat(rows).std(1, correction=0)
    return rows.flatten(2).std(2, correction=0)


#: From rows (N, ...) to one number for each, or for each channel.
MEASURES: dict[str, Callable[[Tensor], Tensor]] = {
    "root mean square": lambda rows: _flat(rows).square().mean(1).sqrt(),
    "deviation per channel": _channels,
    "median size": lambda rows: _flat(rows).abs().median(1).values / 0.6744898,
    "Mills": _mills,
    "mean open": _excited,
    "overlap": _overlap,
    "sides": _sides,
}
#: What the package has, and what it has not.
ALL = ("deviation", "mean output", "gamma", *MEASURES)


def in_units(scale: float, measure: str) -> Spread:
    """A temperature in these units: by the package where it has them."""
    if measure == "mean output":
        return Spread(scale, "output")
    if measure == "gamma":
        return Gamma(scale, "output")
    return Spread(scale) if measure == "deviation" else Measured(scale, measure=measure)
