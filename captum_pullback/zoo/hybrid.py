"""A small modern network: convolutions with squeeze-and-excitation, then transformer blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["HybridNet"]


class SqueezeExcitation(nn.Module):
    """Scales each channel by a sigmoid of all channels' means (arXiv 1709.01507).

    Args:
        channels: Of input and output; a quarter as many are between the two layers.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, channels // 4)
        self.expand = nn.Linear(channels // 4, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, channels, H, W)`` to the same shape."""
        scale = torch.sigmoid(self.expand(F.gelu(self.reduce(x.mean((2, 3))))))
        return x * scale[:, :, None, None]


class ConvBlock(nn.Module):
    """A residual pair of 3x3 convolutions with BatchNorm, GELU and squeeze-and-excitation.

    Args:
        channels: Of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.se = SqueezeExcitation(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, channels, H, W)`` to the same shape."""
        y = self.bn2(self.conv2(F.gelu(self.bn1(self.conv1(x)))))
        return F.gelu(x + self.se(y))


class Attention(nn.Module):
    """Multi-head self-attention.

    Args:
        width: Of each token.
        heads: How many heads share the width.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens ``(N, L, width)`` to the same shape."""
        n, length, width = x.shape
        parts = self.qkv(x).view(n, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.project(mixed.transpose(1, 2).reshape(n, length, width))
        return projected


class TransformerBlock(nn.Module):
    """Attention and a two-layer perceptron with GELU, each after a LayerNorm, with shortcuts.

    Args:
        width: Of each token.
        heads: Of the attention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens ``(N, L, width)`` to the same shape."""
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class HybridNet(nn.Module):
    """A small classifier with the gates of modern networks, for pictures of 64 x 64 pixels.

    Convolutions at 32, 16 and 8 pixels a side, then transformer blocks over the 8 x 8 tokens, whose
    positions are learned; a LayerNorm, the tokens' mean and a linear layer.

    Args:
        classes: Number of classes.
        widths: Channels at 32, 16 and 8 pixels, and the width of the tokens.
        size: Height and width of the input, a multiple of 8.
        blocks: How many transformer blocks there are.
        heads: Of each attention.
    """

    def __init__(
        self,
        classes: int = 24,
        widths: Sequence[int] = (32, 64, 128, 160),
        size: int = 64,
        blocks: int = 3,
        heads: int = 4,
    ) -> None:
        super().__init__()
        stem, second, third, width = widths
        self.settings: dict[str, Any] = {
            "classes": classes,
            "widths": list(widths),
            "size": size,
            "blocks": blocks,
            "heads": heads,
        }
        self.stem = _downsample(3, stem)
        self.stage1 = ConvBlock(stem)
        self.down2 = _downsample(stem, second)
        self.stage2 = nn.Sequential(ConvBlock(second), ConvBlock(second))
        self.down3 = _downsample(second, third)
        self.stage3 = nn.Sequential(ConvBlock(third), ConvBlock(third))
        self.embed = nn.Conv2d(third, width, 1)
        self.position = nn.Parameter(torch.empty(1, (size // 8) ** 2, width))
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, classes)
        self._initialize()

    def _initialize(self) -> None:
        nn.init.trunc_normal_(self.position, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, 3, size, size)`` to logits ``(N, classes)``."""
        x = self.stage1(self.stem(x))
        x = self.stage3(self.down3(self.stage2(self.down2(x))))
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.position
        logits: Tensor = self.fc(self.norm(self.blocks(tokens)).mean(1))
        return logits


def _downsample(inputs: int, outputs: int) -> nn.Sequential:
    """Halve the resolution."""
    conv = nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.GELU())
