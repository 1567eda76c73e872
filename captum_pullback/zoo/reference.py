"""The small residual network of the package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut; one ReLU module serves both gates, as in torchvision.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        stride: Of the first convolution; other than 1, or with ``inputs != outputs``, the
            shortcut is a 1x1 convolution.
        batch_norm: Without it, convolutions have biases and the normalizations are identities.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, batch_norm: bool) -> None:
        super().__init__()
        bias = not batch_norm
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)
        self.bn1 = nn.BatchNorm2d(outputs) if batch_norm else nn.Identity()
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=bias)
        self.bn2 = nn.BatchNorm2d(outputs) if batch_norm else nn.Identity()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=bias)
            norm = nn.BatchNorm2d(outputs) if batch_norm else nn.Identity()
            self.downsample = nn.Sequential(shortcut, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, inputs, H, W)`` to ``(N, outputs, H / stride, W / stride)``."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        gated: Tensor = self.relu(y + self.downsample(x))
        return gated


class ReferenceNet(nn.Module):
    """A small residual classifier: a ResNet-18 of half the width, with a stem for 64 x 64 pixels.

    Modules have torchvision's ResNet names. Without BatchNorm the weights start as in Fixup
    (arXiv 1901.09321): each residual branch, and the linear layer, begins at zero.

    Args:
        classes: Number of classes.
        widths: Channels of the four stages; the last three each halve the resolution.
        batch_norm: Whether convolutions are followed by BatchNorm.
    """

    def __init__(
        self,
        classes: int = 24,
        widths: Sequence[int] = (32, 64, 128, 256),
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        stem, second, third, fourth = widths
        self.settings: dict[str, Any] = {
            "classes": classes,
            "widths": list(widths),
            "batch_norm": batch_norm,
        }
        self.conv1 = nn.Conv2d(3, stem, 3, 1, 1, bias=not batch_norm)
        self.bn1 = nn.BatchNorm2d(stem) if batch_norm else nn.Identity()
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(stem, stem, 1, batch_norm)
        self.layer2 = _stage(stem, second, 2, batch_norm)
        self.layer3 = _stage(second, third, 2, batch_norm)
        self.layer4 = _stage(third, fourth, 2, batch_norm)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(fourth, classes)
        self._initialize(fixup=not batch_norm)

    def _initialize(self, fixup: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if fixup:
            blocks = [m for m in self.modules() if isinstance(m, BasicBlock)]
            with torch.no_grad():
                for block in blocks:
                    block.conv1.weight.mul_(len(blocks) ** -0.5)
                    block.conv2.weight.zero_()
                self.fc.weight.zero_()
                self.fc.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, 3, H, W)`` to logits ``(N, classes)``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def _stage(inputs: int, outputs: int, stride: int, batch_norm: bool) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride, batch_norm)
    return nn.Sequential(first, BasicBlock(outputs, outputs, 1, batch_norm))
