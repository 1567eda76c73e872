"""Whether an attribution depends on what it should explain: the class, and the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from captum_pullback.perturbations import seeded

__all__ = ["randomized", "similarity", "spread", "stages"]


def similarity(one: Tensor, other: Tensor, absolute: bool) -> float:
    """Spearman's rank correlation of two maps (C, H, W) summed over channels.

    NaN where a map is constant, as one without gradient is.
    """
    maps = [values.double().sum(0).flatten().cpu() for values in (one, other)]
    if absolute:
        maps = [values.abs() for values in maps]
    if any(bool((values == values[0]).all()) for values in maps):
        return math.nan
    ranks = np.column_stack([_ranks(values.numpy()) for values in maps])
    return float(np.asarray(np.corrcoef(ranks, rowvar=False))[1, 0])


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The place of each value among them, from 1; equal ones share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    places: npt.NDArray[np.float64] = (last - counts + 1 + last) / 2
    return places[inverse]


def stages(model: nn.Module) -> list[tuple[str, list[str]]]:
    """The parts of a network that are randomized one after the other, from the output back.

    They are the children with parameters, of which a normalisation belongs to the one before it;
    a `Sequential` of bare layers, like VGG's, counts by its own children.

    Returns:
        For each stage its name and the names of its modules.
    """
    parts: list[list[str]] = []
    for name, module in _children(model):
        if not list(module.parameters()):
            continue
        is_norm = isinstance(module, nn.modules.batchnorm._NormBase | nn.LayerNorm | nn.GroupNorm)
        if is_norm and parts:
            parts[-1].append(name)
        else:
            parts.append([name])
    return [(part[0], part) for part in reversed(parts)]


def _children(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_children():
        path = f"{prefix}{name}"
        has_leaves = any(list(child.parameters(recurse=False)) for child in module.children())
        if isinstance(module, nn.Sequential) and has_leaves:
            yield from _children(module, f"{path}.")
        else:
            yield path, module


def spread(parts: list[tuple[str, list[str]]], count: int) -> list[tuple[str, list[str]]]:
    """So many stages as evenly as can be, first and last included; each takes in those between."""
    if count >= len(parts):
        return parts
    ends = [round(k * (len(parts) - 1) / max(count - 1, 1)) for k in range(count)]
    begins = [0, *(end + 1 for end in ends[:-1])]
    return [
        (parts[end][0], [name for _, names in parts[begin : end + 1] for name in names])
        for begin, end in zip(begins, ends, strict=True)
    ]


@torch.no_grad()
def randomized(model: nn.Module, modules: list[str], seed: int) -> nn.Module:
    """A copy in which these modules are as if they had never been trained (their own initialisers).

    Raises:
        ValueError: A module with parameters of its own cannot be reset.
    """
    fresh = copy.deepcopy(model)
    with seeded(seed):
        for name in modules:
            for part in fresh.get_submodule(name).modules():
                own = list(part.parameters(recurse=False))
                if not own:
                    continue
                reset: Any = getattr(part.to("cpu"), "reset_parameters", None)
                if reset is None:
                    raise ValueError(f"{type(part).__name__} in {name} has no reset_parameters()")
                reset()  # the CPU's draws, whatever the device
    device = next(model.parameters()).device
    return fresh.to(device).eval()
