"""Trains several seeds of a small residual network for the stability page, and keeps its steps.

``python -m benchmarks.stability_train --data DIR --out DIR --seeds 0 1 2`` writes
``DIR/{bn,nobn}_seed{seed}/checkpoint_{step:06d}.pt``: ``train_reference`` at half its width, on
pictures of 32 x 32 pixels, so that three seeds with and without BatchNorm take less than one full
training. Started again it goes on where it was. With ``--matched`` both are trained alike, by
AdamW, and a narrower network with BatchNorm, whose accuracy is near that of the one without.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import train_reference
from benchmarks.pictures import first_of_each, read_split

WIDTHS = ("--widths", "16", "32", "64", "128")
COMMON = ("--polish", "0", "--no-bf16", "--kept", "3", "--anneal", "linear", "--warm-up", "0.25")
SGD = (*COMMON, *WIDTHS, "--optimizer", "sgd", "--weight-decay", "5e-4")
ADAMW = (*COMMON, "--optimizer", "adamw", "--weight-decay", "0.05", "--clip", "1", "--lr", "0.002")
#: The arguments of each kind of network.
RECIPES = {"bn": [*SGD, "--lr", "0.15"], "nobn": [*SGD, "--no-batch-norm", "--lr", "0.05"]}
MATCHED = {
    "bn": [*ADAMW, *WIDTHS],
    "nobn": [*ADAMW, *WIDTHS, "--no-batch-norm"],
    "narrow": [*ADAMW, "--widths", "8", "16", "32", "64"],
}


def smaller(pictures: Tensor) -> Tensor:
    """Return half the resolution, each pixel the mean of four; uint8."""
    return F.avg_pool2d(pictures.float(), 2).round().to(torch.uint8)


def main(argv: list[str] | None = None) -> None:
    """Train what is not there yet."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(prog="benchmarks.stability_train", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoints")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument(
        "--per-class", type=int, default=250, help="training pictures of each class"
    )
    parser.add_argument("--matched", action="store_true", help="train all kinds alike")
    args = parser.parse_args(argv)
    data = {}
    for split, most in (("train", args.per_class), ("val", None)):
        pictures, labels, folders = read_split(args.data / split)
        few = first_of_each(labels, most)
        data[split] = smaller(pictures[few]), labels[few], folders
    for kind, recipe in (MATCHED if args.matched else RECIPES).items():
        for seed in args.seeds:
            out = args.out / f"{kind}_seed{seed}"
            out.mkdir(parents=True, exist_ok=True)
            own = ["--data", str(args.data), "--out", str(out), "--seed", str(seed)]
            own += ["--epochs", str(args.epochs), *recipe]
            given = train_reference.parse(own)
            train_reference.train(given, data, train_reference.build)


if __name__ == "__main__":
    main()
