"""A network small enough for a benchmark within a test: ``tiny_network:make``."""

from __future__ import annotations

import os
import time

import torch
from torch import Tensor, nn

from captum_pullback.zoo.networks import Network, preprocessing


class Tiny(nn.Module):
    """Two convolutions, whose ReLU is one module used twice, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(8, 8, 3, 2, 1)
        self.fc = nn.Linear(8 * 8 * 8, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, 3, 32, 32) to (N, 2), slowly where a test is to get hold of it meanwhile."""
        time.sleep(float(os.environ.get("TINY_SLEEP", "0")))
        x = self.relu(self.bn1(self.conv1(x)))
        return self.fc(self.relu(self.conv2(x)).flatten(1))


def make() -> Network:
    """The network with the same random weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Network(Tiny().eval(), ("one", "two"), preprocessing(32), input_size=32, name="tiny")
