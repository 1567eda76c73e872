"""What ascents are tested on: networks, inputs, and the lengths of differences."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LENGTHS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def convolutional(dtype: torch.dtype = torch.float64) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5),
        )  # fmt: skip
    return model.to(dtype).eval()


def images(count: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    return normal(count, 3, 8, 8, dtype=dtype)


def lengths(rows: Tensor) -> Tensor:
    return rows.double().flatten(1).norm(dim=1)
