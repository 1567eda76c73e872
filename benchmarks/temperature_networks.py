"""The networks on which temperatures are compared, in two halves: to choose with, and held back.

``python -m benchmarks.temperature_networks --data DIR --out DIR`` trains the small ones among them
on pictures of 32 x 32 pixels and writes ``DIR/NAME/checkpoint_{step}.pt``; started again it goes on
where it was. The others are installed or stand in the repository.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks import train_reference
from benchmarks.networks import hybrid, without_batch_norm
from benchmarks.pictures import read_split
from benchmarks.stability_train import smaller
from captum_pullback.zoo import reference_network
from captum_pullback.zoo.networks import Network, load

SIZE = 32


class Block(nn.Module):
    """Convolutions of 3 x 3, each with what normalizes it and a gate; a shortcut if residual."""

    def __init__(self, inputs: int, outputs: int, stride: int, kind: Kind) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.norm1 = kind.norm(outputs)
        self.gate1 = kind.gate()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.norm2 = kind.norm(outputs)
        self.gate2 = kind.gate()
        self.shortcut: nn.Module | None = None
        if kind.residual:
            same = stride == 1 and inputs == outputs
            self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, inputs, H, W)`` to ``(N, outputs, H / stride, W / stride)``."""
        y = self.norm2(self.conv2(self.gate1(self.norm1(self.conv1(x)))))
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        gated: Tensor = self.gate2(y)
        return gated


def batch_norm(channels: int) -> nn.Module:
    """Return BatchNorm."""
    return nn.BatchNorm2d(channels)


def group_norm(channels: int) -> nn.Module:
    """Return GroupNorm of four groups."""
    return nn.GroupNorm(4, channels)


def no_norm(_: int) -> nn.Module:
    """Return what normalizes nothing."""
    return nn.Identity()


@dataclass(frozen=True)
class Kind:
    """What a small network is like.

    Attributes:
        norm: What normalizes so many channels.
        gate: What makes a gate.
        residual: Whether blocks have shortcuts.
        blocks: Of two convolutions each, in each of the three stages.
        width: Channels of the first stage; they double twice.
        epochs: For how long it is trained.
    """

    norm: Callable[[int], nn.Module] = batch_norm
    gate: Callable[[], nn.Module] = nn.ReLU
    residual: bool = False
    blocks: int = 1
    width: int = 16
    epochs: int = 8


class SmallNet(nn.Module):
    """A small convolutional classifier for pictures of 32 x 32 pixels.

    Args:
        kind: What it is like.
        classes: Number of classes.
    """

    def __init__(self, kind: Kind, classes: int = 24) -> None:
        super().__init__()
        width = kind.width
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1), kind.norm(width), kind.gate())
        stages = [width, width, 2 * width, 4 * width]
        self.stages = nn.Sequential(
            *(
                Block(stages[k] if b == 0 else stages[k + 1], stages[k + 1], 2 - bool(b), kind)
                for k in range(3)
                for b in range(kind.blocks)
            )
        )
        self.fc = nn.Linear(4 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, Block) and module.shortcut is not None:
                    # A residual branch that starts small keeps the signal's size in any depth.
                    last = module.norm2 if hasattr(module.norm2, "weight") else module.conv2
                    last.weight.mul_(0.1)  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, 3, 32, 32)`` to logits ``(N, classes)``."""
        logits: Tensor = self.fc(self.stages(self.stem(x)).mean((2, 3)))
        return logits


#: The small networks, by name.
KINDS = {
    "plain": Kind(epochs=10),
    "plain-groupnorm": Kind(norm=group_norm, blocks=2, epochs=10),
    "residual-20": Kind(residual=True, blocks=3, epochs=6),
    "plain-nonorm": Kind(norm=no_norm),
    "residual-silu": Kind(gate=nn.SiLU, residual=True),
    "residual-nonorm": Kind(norm=no_norm, residual=True, blocks=2),
}


def trained(name: str, folder: Path) -> Network:
    """Return a small network with the weights of its last step.

    Raises:
        FileNotFoundError: It has not been trained.
    """
    latest = folder / name / "latest.pt"
    if not latest.exists():
        raise FileNotFoundError(
            f"{latest} is missing: python -m benchmarks.temperature_networks trains it"
        )
    state = torch.load(latest, weights_only=True)["model"]
    model = SmallNet(KINDS[name], len(state["fc.bias"]))
    model.load_state_dict(state)
    return Network(
        model.eval(), (), reference_network().preprocess, input_size=SIZE, name=name,
    )  # fmt: skip


def on_disk(folder: Path) -> dict[str, dict[str, Callable[[], Network]]]:
    """Return what makes each network, in two halves.

    What had been looked at before the study began stands in the first half.
    """
    return {
        "chosen with": {
            "embedded": reference_network,
            "without BatchNorm": without_batch_norm,
            "EfficientNet-Lite0": partial(load, "efficientnet_lite0"),
            "plain": partial(trained, "plain", folder),
            "plain-groupnorm": partial(trained, "plain-groupnorm", folder),
        },
        "held back": {
            "hybrid": hybrid,
            "residual-20": partial(trained, "residual-20", folder),
            "plain-nonorm": partial(trained, "plain-nonorm", folder),
            "residual-nonorm": partial(trained, "residual-nonorm", folder),
            "residual-silu": partial(trained, "residual-silu", folder),
        },
    }


def build(kind: Kind, _: argparse.Namespace, classes: int) -> SmallNet:
    """Return a small network with fresh weights."""
    return SmallNet(kind, classes)


def main(argv: list[str] | None = None) -> None:
    """Train what is not there yet."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(prog="benchmarks.temperature_networks", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the networks")
    parser.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS))
    args = parser.parse_args(argv)
    data = {}
    for split in ("train", "val"):
        pictures, labels, folders = read_split(args.data / split)
        data[split] = smaller(pictures), labels, folders
    for name in args.only:
        out = args.out / name
        out.mkdir(parents=True, exist_ok=True)
        normalized = KINDS[name].norm is not no_norm
        own = ["--data", str(args.data), "--out", str(out), "--epochs", str(KINDS[name].epochs)]
        own += ["--polish", "0", "--no-bf16", "--optimizer", "adamw", "--clip", "1"]
        own += ["--lr", "0.004" if normalized else "0.002"]
        logging.info(name)
        train_reference.train(train_reference.parse(own), data, partial(build, KINDS[name]))


if __name__ == "__main__":
    main()
