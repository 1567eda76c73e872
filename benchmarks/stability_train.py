"""Trains several seeds of a small residual network for the stability page, and keeps its steps.

``python -m benchmarks.stability_train --data DIR --out DIR --seeds 0 1 2`` writes
``DIR/{bn,nobn}_seed{seed}/checkpoint_{step:06d}.pt``: the recipe of ``train_reference`` at half
its width, on pictures of 32 x 32 pixels, so that three seeds with and without BatchNorm take less
than one full training. What is there already is left as it is.
"""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.train_reference import augment, normalise, optimizer_for, read_split, right, save
from captum_pullback.zoo.reference import ReferenceNet

log = logging.getLogger("stability_train")

WIDTHS = (16, 32, 64, 128)
EARLY_STEPS = (0, 1, 2, 4, 8, 16, 32, 64)


def smaller(pictures: Tensor) -> Tensor:
    """Half the resolution, each pixel the mean of four; uint8."""
    return F.avg_pool2d(pictures.float(), 2).round().to(torch.uint8)


def train(
    pictures: Tensor,
    labels: Tensor,
    held_out: tuple[Tensor, Tensor],
    out: Path,
    *,
    seed: int,
    batch_norm: bool,
    epochs: int,
    batch_size: int = 64,
) -> float:
    """One network; checkpoints at the first steps and at every third of an epoch.

    Returns:
        Its accuracy on the held out pictures, at the end.
    """
    torch.manual_seed(seed)
    model = ReferenceNet(int(labels.max()) + 1, WIDTHS, batch_norm)
    lr = 0.15 if batch_norm else 0.05
    optimizer = optimizer_for(model, lr, 5e-4)
    steps = len(pictures) // batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, epochs * steps, pct_start=0.25, anneal_strategy="linear"
    )
    inputs, answers = normalise(held_out[0]), held_out[1]
    step, accuracy = 0, 0.0

    def keep(evaluated: bool = False) -> float:
        right_ones = right(model, inputs, answers) if evaluated else torch.full((1,), math.nan)
        accuracy = float(right_ones.float().mean())
        state = {"model": model.state_dict(), "step": step, "accuracy": accuracy}
        save(state, out / f"checkpoint_{step:06d}.pt")
        return accuracy

    model.train()
    for epoch in range(epochs):
        generator = torch.Generator().manual_seed(1000 * seed + epoch)
        order = torch.randperm(len(pictures), generator=generator)[: steps * batch_size]
        for number, batch in enumerate(torch.split(order, batch_size)):
            if step in EARLY_STEPS or number in (steps // 3, 2 * steps // 3):
                keep()
            logits = model(augment(pictures[batch], generator))
            loss = F.cross_entropy(logits, labels[batch], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if not batch_norm:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step += 1
        accuracy = keep(evaluated=True)
        log.info("%s: epoch %d, val accuracy %.4f", out.name, epoch + 1, accuracy)
    return accuracy


def main() -> None:
    """Trains what is not there yet."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(prog="benchmarks.stability_train", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoints")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument(
        "--per-class", type=int, default=250, help="training pictures of each class"
    )
    args = parser.parse_args()
    splits = {split: read_split(args.data / split) for split in ("train", "val")}
    pictures, labels = smaller(splits["train"][0]), splits["train"][1]
    few = torch.cat([torch.nonzero(labels == c)[: args.per_class, 0] for c in labels.unique()])
    pictures, labels = pictures[few], labels[few]
    held_out = smaller(splits["val"][0]), splits["val"][1]
    for batch_norm in (True, False):
        for seed in args.seeds:
            out = args.out / f"{'bn' if batch_norm else 'nobn'}_seed{seed}"
            last = args.epochs * (len(pictures) // 64)
            if (out / f"checkpoint_{last:06d}.pt").exists():
                continue
            out.mkdir(parents=True, exist_ok=True)
            train(
                pictures,
                labels,
                held_out,
                out,
                seed=seed,
                batch_norm=batch_norm,
                epochs=args.epochs,
            )


if __name__ == "__main__":
    main()
