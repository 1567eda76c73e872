"""Whether an attribution depends on what it should explain: the class and the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_pullback.perturbations import seeded
from captum_pullback.study.metrics.correlation import ranks

__all__ = [
    "cascading_randomization", "random_logit", "randomized", "similarity", "spread", "stages",
]  # fmt: skip

_NORMS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.InstanceNorm1d,
    nn.InstanceNorm2d, nn.InstanceNorm3d, nn.LayerNorm, nn.GroupNorm,
)  # fmt: skip


def random_logit(
    attribution: Any,
    inputs: Tensor,
    target: Tensor,
    others: Tensor | int,
    *,
    absolute: bool = False,
    seed: int = 0,
    **options: Any,
) -> Tensor:
    """How similar the attributions of the target and of another class are.

    Source: Sixt et al. 2020, arXiv 1912.09818.

    Args:
        attribution: A Captum attribution method, or its ``attribute``.
        inputs: Images (N, C, H, W).
        target: The class of each, (N,).
        others: Another class for each, (N,); or the number of classes, from which one other than
            the target is drawn for each example.
        absolute: Whether to ignore signs.
        seed: For this draw, and for a method's own noise, which is the same for both maps; the
            state of torch's generators does not change.
        **options: Passed to ``attribute``.

    Returns:
        The `similarity` for each example, (N,), in float64. At 0 one map says nothing about the
        other. A map that is the same for all classes has 1.

    Raises:
        ValueError: The other class is the target itself.
    """
    target = torch.as_tensor(target, device=inputs.device)
    if isinstance(others, int):
        with seeded(seed):
            steps = torch.randint(1, others, (len(inputs),)).to(target)
        others = (target + steps) % others
    if bool((others == target).any()):
        raise ValueError("the other class is the target itself")
    one, other = (
        _attributed(attribution, inputs, each, seed, options) for each in (target, others)
    )
    return _similarities(one, other, absolute)


def cascading_randomization(
    make: Callable[[Any], Any],
    model: nn.Module,
    inputs: Tensor,
    target: Any,
    *,
    parts: list[tuple[str, list[str]]] | None = None,
    absolute: bool = True,
    seed: int = 0,
    **options: Any,
) -> dict[str, Tensor]:
    """How similar attributions are before and after parts of the network are reinitialized.

    Parts are reinitialized one after another, from the output back, and stay so. Source: Adebayo et
    al. 2018, arXiv 1810.03292.

    Args:
        make: Takes a network and returns a Captum attribution method, or its ``attribute``.
        model: The network, in eval mode; it is not changed.
        inputs: Images (N, C, H, W).
        target: As Captum takes it.
        parts: Modules that are reinitialized together, by default the `stages`; `spread` makes
            fewer of them.
        absolute: Whether to ignore signs.
        seed: For the new weights, and for a method's own noise; the state of torch's generators
            does not change.
        **options: Passed to ``attribute``.

    Returns:
        For the name of each part, in order, the `similarity` of each example's attribution to the
        one from the trained network, (N,), in float64. At 1 it does not matter what the network
        learned.

    Raises:
        ValueError: A module with parameters of its own cannot be reinitialized.
    """
    trained = _attributed(make(model), inputs, target, seed, options)
    found, modules = {}, []
    for name, names in stages(model) if parts is None else parts:
        modules += names
        fresh = _attributed(make(randomized(model, modules, seed)), inputs, target, seed, options)
        found[name] = _similarities(trained, fresh, absolute)
    return found


def _attributed(
    attribution: Any, inputs: Tensor, target: Any, seed: int, options: dict[str, Any]
) -> Tensor:
    attribute = getattr(attribution, "attribute", attribution)
    with seeded(seed):
        found: Tensor = attribute(
            inputs.detach().clone().requires_grad_(), target=target, **options
        )
    return found.detach()


def _similarities(one: Tensor, other: Tensor, absolute: bool) -> Tensor:
    pairs = zip(one, other, strict=True)
    return torch.tensor([similarity(*pair, absolute) for pair in pairs], dtype=torch.float64)


def similarity(one: Tensor, other: Tensor, absolute: bool) -> float:
    """Spearman's rank correlation of two maps (C, H, W) summed over channels.

    NaN if a map is constant, as it is where there is no gradient.
    """
    maps = [values.double().sum(0).flatten().cpu() for values in (one, other)]
    if absolute:
        maps = [values.abs() for values in maps]
    if any(bool((values == values[0]).all()) for values in maps):
        return math.nan
    places = np.column_stack([ranks(values).numpy() for values in maps])
    return float(np.asarray(np.corrcoef(places, rowvar=False))[1, 0])


def stages(model: nn.Module) -> list[tuple[str, list[str]]]:
    """The parts of a network that are reinitialized one after another, from the output back.

    These are the children that have parameters. A normalization belongs to the part before it, and
    a ``Sequential`` of single layers, like VGG's, is split into its own children.

    Returns:
        The name of each stage, with the names of its modules.
    """
    parts: list[list[str]] = []
    for name, module in _children(model):
        if not list(module.parameters()):
            continue
        is_norm = isinstance(module, _NORMS)
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
    """Merges stages into ``count``, as evenly as possible; the first stays as it is."""
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
    """A copy in which these modules are reinitialized, each by its own ``reset_parameters``.

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
                reset()  # drawn on the CPU, whatever the device
    device = next(model.parameters()).device
    return fresh.to(device).eval()
