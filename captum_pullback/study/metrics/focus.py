"""Mosaics of four pictures, two of them of the target class, and where a map points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_pullback.engine.models import widened
from captum_pullback.perturbations import seeded

__all__ = ["Mosaics", "focus", "mosaics"]


@dataclass(frozen=True)
class Mosaics:
    """Pictures of 2 x 2 pictures.

    Attributes:
        inputs: (N, C, 2 H, 2 W).
        target: The class of two of the four pictures, (N,).
        inside: Which quadrants show this class, (N, 4): upper left, upper right, lower left, lower
            right.
        members: The numbers of the pictures, (N, 4), in the same order.
    """

    inputs: Tensor
    target: Tensor
    inside: Tensor
    members: Tensor


def mosaics(images: Tensor, labels: Sequence[int] | Tensor, count: int, seed: int = 0) -> Mosaics:
    """Mosaics of two pictures of one class and two of other classes, in random places.

    Source: Arias-Duart et al. 2022, arXiv 2109.15035.

    Args:
        images: (M, C, H, W).
        labels: The class of each.
        count: The number of mosaics N; the classes with at least two pictures take turns.
        seed: For all draws; the state of torch's generators does not change.

    Raises:
        ValueError: No class has two pictures, or there are fewer than two of other classes.
    """
    numbers = torch.as_tensor(labels)
    if len(numbers) != len(images):
        raise ValueError(f"{len(images)} images have {len(numbers)} labels")
    own = {
        label: torch.nonzero(numbers == label).flatten() for label in sorted(set(numbers.tolist()))
    }
    usable = [
        label
        for label, members in own.items()
        if len(members) >= 2 and len(numbers) - len(members) >= 2
    ]
    if not usable:
        raise ValueError("mosaics need a class with two images, and two images of other classes")
    targets, inside, members = [], [], []
    with seeded(seed):
        order = torch.randperm(len(usable)).tolist()
        for number in range(count):
            label = usable[order[number % len(usable)]]
            others = torch.nonzero(numbers != label).flatten()
            taken = torch.cat(
                [each[torch.randperm(len(each))[:2]] for each in (own[label], others)]
            )
            places = torch.randperm(4)
            targets.append(label)
            inside.append((places < 2).tolist())
            members.append(taken[places].tolist())
    chosen = torch.tensor(members, device=images.device)
    upper_left, upper_right, lower_left, lower_right = (images[each] for each in chosen.T)
    upper, lower = (
        torch.cat([upper_left, upper_right], 3),
        torch.cat([lower_left, lower_right], 3),
    )
    return Mosaics(
        torch.cat([upper, lower], 2),
        torch.tensor(targets, device=images.device),
        torch.tensor(inside, device=images.device),
        chosen,
    )


def focus(attributions: Tensor, inside: Tensor) -> Tensor:
    r"""The share of a map's positive part that lies in the quadrants of its class.

    With a the attribution summed over channels and Q those quadrants,

    .. math::
        \frac{\sum_{p \in Q} \max(a_p, 0)}{\sum_p \max(a_p, 0)}

    which is 0.5 on average for a map that knows nothing about the class. Source: Arias-Duart et al.
    2022, arXiv 2109.15035.

    Args:
        attributions: Contributions (N, C, 2 H, 2 W), for ``Mosaics.inputs``.
        inside: ``Mosaics.inside``.

    Returns:
        (N,), in float64 if the device supports it, within [0, 1]; higher is better. NaN if nothing
        is positive.
    """
    positive = widened(attributions).sum(1).clamp(min=0)
    height, width = (side // 2 for side in positive.shape[1:])
    quarters = torch.stack(
        [
            half.sum((1, 2))
            for rows in (positive[:, :height], positive[:, height:])
            for half in (rows[..., :width], rows[..., width:])
        ],
        1,
    )
    total = quarters.sum(1)
    share = (quarters * inside.to(quarters)).sum(1) / torch.where(total > 0, total, 1.0)
    return torch.where(total > 0, share, math.nan)
