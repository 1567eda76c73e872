"""Trains a reference network on an image folder, and exports the weights that are shipped.

``python -m benchmarks.train_reference --data DIR --out DIR`` trains; with ``--export FILE`` it
then quantises the result, measures it from the written file, and writes its metadata beside it.
Started again with the same arguments it goes on after the last whole epoch. ``DIR`` of the data
holds ``train/<class>/*`` and ``val/<class>/*``, and may hold a ``classes.csv`` with the columns
``wnid`` (the folder) and ``name``.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from benchmarks.export import export, right
from benchmarks.pictures import Split, augment, mix, normalize, read_split
from captum_pullback.outputs import replacing
from captum_pullback.zoo.hybrid import HybridNet
from captum_pullback.zoo.reference import ReferenceNet

log = logging.getLogger("train_reference")

Trained = TypeVar("Trained", bound=nn.Module)
EARLY_STEPS = (0, 1, 2, 4, 8, 16, 32, 64)
"""Steps at which a checkpoint is kept besides the ends of epochs: gates change most here."""


def save(state: dict[str, Any], path: Path) -> None:
    """Writes a file whole or not at all."""
    with replacing(path) as file:
        torch.save(state, file)


def optimizer_for(
    model: nn.Module, lr: float, weight_decay: float, kind: str = "sgd"
) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW; biases and BatchNorm do not decay."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": weights}, {"params": others, "weight_decay": 0.0}]
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr, weight_decay=weight_decay)
    return torch.optim.SGD(groups, lr, momentum=0.9, nesterov=True, weight_decay=weight_decay)


def cycle(
    optimizer: torch.optim.Optimizer, lr: float, steps: int, args: argparse.Namespace
) -> torch.optim.lr_scheduler.OneCycleLR:
    """Up to a peak and down to nothing."""
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, steps, pct_start=args.warm_up, anneal_strategy=args.anneal
    )


def layout(widths: Sequence[int]) -> torch.memory_format:
    """The fastest memory format that is safe for these channels, of weights and of inputs alike.

    Channels-last, unless there are fewer than 8 channels. Below that, on CPUs with AVX2 and no
    AVX-512, oneDNN (in torch 2.14) takes wrong weight gradients of channels-last 1x1 convolutions
    with a stride, such as the shortcuts are, and writes past its memory: training aborts or hangs.
    ``ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2`` shows it on other CPUs.
    """
    return torch.channels_last if min(widths) >= 8 else torch.contiguous_format


def build(args: argparse.Namespace, classes: int) -> ReferenceNet | HybridNet:
    """The network that is asked for, with fresh weights."""
    if args.network == "hybrid":
        return HybridNet(classes, args.widths)
    return ReferenceNet(classes, args.widths, args.batch_norm)


def train(
    args: argparse.Namespace,
    data: dict[str, Split],
    build: Callable[[argparse.Namespace, int], Trained],
) -> Trained:
    """Trains, or goes on training, and leaves its checkpoints in ``args.out``.

    The network is the last step's: validation accuracy is logged and chooses nothing.
    """
    pictures, labels, folders = data["train"]
    torch.manual_seed(args.seed)
    model = build(args, len(folders))
    memory_format = layout(args.widths)
    model.to(memory_format=memory_format)
    optimizer = optimizer_for(model, args.lr, args.weight_decay, args.optimizer)
    steps = len(pictures) // args.batch_size
    schedule = cycle(optimizer, args.lr, args.epochs * steps, args)
    held_out = normalize(data["val"][0])
    kept = {steps * part // args.kept for part in range(1, args.kept)}
    first, step, latest = 0, 0, args.out / "latest.pt"
    if latest.exists():
        state = torch.load(latest, weights_only=True)
        first, step = state["epoch"], state["step"]
        if first > args.epochs:
            schedule = cycle(optimizer, args.lr / 5, args.polish * steps, args)
        model.load_state_dict(state["model"])
        schedule.load_state_dict(state["schedule"])
        optimizer.load_state_dict(state["optimizer"])  # last: making a schedule sets the rate
        log.info("going on after epoch %d", first)

    def keep(epoch: int) -> float:
        accuracy = float(right(model, held_out, data["val"][1]).float().mean())
        state = {"model": model.state_dict(), "step": step, "epoch": epoch, "accuracy": accuracy}
        save(state, args.out / f"checkpoint_{step:06d}.pt")
        return accuracy

    model.train()
    for epoch in range(first, args.epochs + args.polish):
        if epoch == args.epochs:
            schedule = cycle(optimizer, args.lr / 5, args.polish * steps, args)
        # Each epoch has a generator of its own, so that a resumed run repeats an unbroken one.
        generator = torch.Generator().manual_seed(1000 * args.seed + epoch)
        order = torch.randperm(len(pictures), generator=generator)[: steps * args.batch_size]
        total, begin = 0.0, time.perf_counter()
        bar = tqdm(
            torch.split(order, args.batch_size), f"epoch {epoch + 1}", leave=False, mininterval=5
        )
        for number, batch in enumerate(bar):
            if step in EARLY_STEPS or number in kept:
                keep(epoch)
            x = augment(pictures[batch], generator)
            other, share = batch, 0.0
            if args.mixup:
                x, partner, share = mix(x, args.mixup, generator)
                other = batch[partner]
            with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
                logits = model(x.contiguous(memory_format=memory_format)).float()
            loss = F.cross_entropy(logits, labels[batch], label_smoothing=0.1)
            if share:
                mixed = F.cross_entropy(logits, labels[other], label_smoothing=0.1)
                loss = torch.lerp(loss, mixed, share)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if args.clip:
                nn.utils.clip_grad_norm_(model.parameters(), args.clip)
            optimizer.step()
            schedule.step()
            step += 1
            total += loss.item()
        if not math.isfinite(total):
            raise SystemExit(f"the loss became {total} in epoch {epoch + 1}; lower --lr")
        accuracy = keep(epoch + 1)
        progress = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        save({"model": model.state_dict(), "step": step, "epoch": epoch + 1, **progress}, latest)
        seconds = time.perf_counter() - begin
        log.info(
            "epoch %d: loss %.4f, val accuracy %.4f, %.0f s",
            epoch + 1,
            total / steps,
            accuracy,
            seconds,
        )
    return model.eval()


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; settings left out follow from whether there is BatchNorm."""
    parser = argparse.ArgumentParser(prog="benchmarks.train_reference", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoints")
    parser.add_argument("--export", type=Path, help="file for the quantised weights")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument(
        "--polish", type=int, default=8, help="epochs of a second cycle, to a fifth of the rate"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--network", choices=["residual", "hybrid"], default="residual",
        help="ReLU and BatchNorm, or GELU, LayerNorm, attention and squeeze-and-excitation",
    )  # fmt: skip
    parser.add_argument("--widths", type=int, nargs=4, help="channels of the four stages")
    parser.add_argument(
        "--mixup", type=float, help="greatest share of another picture; none, or 0.4 for hybrid"
    )
    parser.add_argument("--batch-norm", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument(
        "--optimizer", choices=["sgd", "adamw"], help="sgd, or adamw without BatchNorm"
    )
    parser.add_argument("--lr", type=float, help="peak; 0.15, or for adamw 0.003")
    parser.add_argument("--weight-decay", type=float, help="5e-4, or for adamw 0.05")
    parser.add_argument("--clip", type=float, help="gradient norm; none, or 1 without BatchNorm")
    parser.add_argument(
        "--anneal", choices=["cos", "linear"], default="cos", help="shape of the learning rate"
    )
    parser.add_argument("--warm-up", type=float, default=0.3, help="share of a cycle to the peak")
    parser.add_argument("--kept", type=int, default=1, help="checkpoints kept of each epoch")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args(argv)
    # SGD without BatchNorm stopped at 60 % of the validation pictures, at a rate of 0.05.
    hybrid = args.network == "hybrid"
    if hybrid and not args.batch_norm:
        parser.error("--no-batch-norm is for --network residual")
    args.widths = args.widths or ((32, 64, 128, 160) if hybrid else (32, 64, 128, 256))
    if args.mixup is None:
        args.mixup = 0.4 if hybrid else 0.0
    args.optimizer = args.optimizer or ("sgd" if args.batch_norm and not hybrid else "adamw")
    lr, weight_decay = {"sgd": (0.15, 5e-4), "adamw": (0.003, 0.05)}[args.optimizer]
    args.lr = args.lr or lr
    if args.weight_decay is None:
        args.weight_decay = weight_decay
    if args.clip is None:
        args.clip = 0.0 if args.batch_norm and not hybrid else 1.0
    return args


def main(argv: list[str] | None = None) -> None:
    """Trains what is left to train and exports it if asked."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args = parse(argv)
    torch.use_deterministic_algorithms(True)
    args.out.mkdir(parents=True, exist_ok=True)
    data = {split: read_split(args.data / split) for split in ("train", "val")}
    model = train(args, data, build)
    if args.export:
        export(model, args, data)


if __name__ == "__main__":
    main()
