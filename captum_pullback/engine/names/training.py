"""What is linear unless it trains: BatchNorm and dropout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from captum_pullback.engine.names.spellings import spellings

__all__ = ["DROPOUTS", "TRAINING", "is_training", "trains"]


@dataclass(frozen=True)
class Training:
    """What is linear unless it trains.

    Attributes:
        name: Name of the operation.
        place: Where among the arguments the flag is that says whether it trains.
        default: What the flag is where it is left out.
    """

    name: str
    place: int
    default: bool


# function -> what it is; each takes the probability right after its input
DROPOUTS: dict[Any, Training] = {}
for _name in ("dropout", "dropout1d", "dropout2d", "dropout3d"):
    DROPOUTS[getattr(F, _name)] = Training(_name, 2, default=True)
for _name in ("alpha_dropout", "feature_alpha_dropout"):
    DROPOUTS[getattr(F, _name)] = Training(_name, 2, default=False)
for _name in (
    "dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "native_dropout"
):  # fmt: skip
    for _function in (getattr(torch, _name), *spellings(_name)):
        DROPOUTS.setdefault(_function, Training(_name, 2, default=True))

TRAINING: dict[Any, Training] = {F.batch_norm: Training("batch_norm", 5, default=False), **DROPOUTS}


def trains(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call of a function of `TRAINING` does what it does in training only."""
    place, default = TRAINING[func].place, TRAINING[func].default
    flag = args[place] if len(args) > place else kwargs.get("training", kwargs.get("train"))
    if not (default if flag is None else flag):
        return False
    return func not in DROPOUTS or (args[1] if len(args) > 1 else kwargs.get("p", 0.5)) != 0


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def is_training(func: Any) -> bool:
    """Whether a function is linear unless it trains."""
    return func in TRAINING
