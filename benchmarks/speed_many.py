"""What `benchmarks.speed` measures of many at once, each beside as many single calls.

Targets, temperatures, and the effective weights of all classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_pullback import ExcitationPullback, effective_weights

#: What `fit_temperature` begins with.
SWEEP = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
CLASSES = (0, 1, 2, 3, 4)

TARGETS = ("5 targets, one by one", "5 targets")
TEMPERATURES = ("7 temperatures, one by one", "7 temperatures")
WEIGHTS = ("effective weights, class by class", "effective weights")


def _targets(model: Any, x: Tensor) -> Tensor:
    return ExcitationPullback(model).attribute_targets(x, CLASSES)


def _each_target(model: Any, x: Tensor) -> Tensor:
    pullback = ExcitationPullback(model)
    return torch.stack([pullback.attribute(x, target) for target in CLASSES])


def _temperatures(model: Any, x: Tensor) -> Tensor:
    return ExcitationPullback(model).attribute_temperatures(x, SWEEP, 0)


def _each_temperature(model: Any, x: Tensor) -> Tensor:
    found = [ExcitationPullback(model, temperature).attribute(x, 0) for temperature in SWEEP]
    return torch.stack(found)


def _weights(model: Any, x: Tensor) -> Tensor:
    return effective_weights(model, x)[0]


def _each_weight(model: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        classes = model(x).shape[1]
    return torch.cat([effective_weights(model, x, index)[0] for index in range(classes)], 1)


#: method -> what it gives for a network and a batch
MANY: dict[str, Callable[[Any, Tensor], Tensor]] = dict(
    zip(
        (*TARGETS, *TEMPERATURES, *WEIGHTS),
        (_each_target, _targets, _each_temperature, _temperatures, _each_weight, _weights),
        strict=True,
    )
)
