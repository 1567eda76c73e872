"""A short training of a small network, recorded by a lens."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_pullback import TrainingLens


class Small(nn.Module):
    """Every kind of gate that is recorded: a module's, one used twice, a pool, a function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.bn, self.relu, self.pool = nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)
        self.head = nn.Linear(27, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.bn(self.conv1(x))))
        x = self.relu(x + self.conv2(x))
        return self.head(F.leaky_relu(x.flatten(1) - 0.2, 0.1))


def examples() -> tuple[Tensor, Tensor]:
    """Inputs and labels."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(10, 1, 6, 6, generator=generator), torch.arange(10) % 3


def trained(steps: int, data: tuple[Tensor, Tensor], seed: int = 0) -> list[nn.Module]:
    """The model at each step of a short training."""
    torch.manual_seed(seed)
    model = Small()
    optimizer = torch.optim.SGD(model.parameters(), 0.2)
    states = [copy.deepcopy(model)]
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(data[0]), data[1]).backward()
        optimizer.step()
        states.append(copy.deepcopy(model))
    return states


def recorded(
    models: list[nn.Module], data: tuple[Tensor, Tensor], **options: object
) -> TrainingLens:
    lens = TrainingLens(*data, **options)
    for step, model in enumerate(models):
        assert lens.record(model, 10 * step)
    return lens
