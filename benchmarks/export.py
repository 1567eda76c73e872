"""The weights that are shipped: quantized, measured from the written file, with metadata beside."""

from __future__ import annotations

import argparse
import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.pictures import SIZE, Split, listed, read_names
from benchmarks.provenance import command, versions, write_json
from captum_pullback.lens.watched import in_eval_mode
from captum_pullback.zoo.hybrid import HybridNet
from captum_pullback.zoo.networks import IMAGENET_MEAN, IMAGENET_STD, Network, read_network
from captum_pullback.zoo.packing import pack
from captum_pullback.zoo.reference import ReferenceNet

log = logging.getLogger("train_reference")


@torch.no_grad()
def right(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Which of the inputs come out right, in eval mode and float32."""
    with in_eval_mode(model):
        logits = torch.cat([model(part) for part in torch.split(inputs, 200)])
    return logits.argmax(1) == labels


def export(
    model: ReferenceNet | HybridNet, args: argparse.Namespace, data: dict[str, Split]
) -> None:
    """Writes the quantised weights and their metadata, measured from the written file."""
    path: Path = args.export
    _, labels, folders = data["val"]
    names = read_names(args.data, folders)
    packed = pack(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed)
    meta: dict[str, Any] = {
        "sha256": hashlib.sha256(packed).hexdigest(),
        "input_size": SIZE,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "classes": names,
        "folders": folders,
    }
    write_json(path.with_suffix(".json"), meta)
    network = read_network(path, path.stem)
    inputs = torch.stack(list(preprocessed(network, args.data / "val")))
    shipped = right(network.model, inputs, labels)
    before = right(model, inputs, labels)
    settings = {k: v for k, v in vars(args).items() if k not in ("data", "out", "export")}
    meta |= {
        "accuracy": round(float(shipped.float().mean()), 4),
        "accuracy_before_quantising": round(float(before.float().mean()), 4),
        "accuracy_per_class": {
            name: round(float(shipped[labels == label].float().mean()), 4)
            for label, name in enumerate(names)
        },
        "pictures": {split: len(data[split][1]) for split in data},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "command": command(
            "benchmarks.train_reference", args, data="DIR", out="DIR", export="FILE"
        ),
        "settings": settings,
        "seed": args.seed,
        "versions": versions(),
    }
    write_json(path.with_suffix(".json"), meta)
    log.info("%s: %d bytes, val accuracy %.4f", path, len(packed), meta["accuracy"])


def preprocessed(network: Network, folder: Path) -> Iterator[Tensor]:
    """The pictures of a split in the order of ``read_split``, as the shipped network sees them."""
    for file in listed(folder)[0]:
        with Image.open(file) as image:
            yield network.preprocess(image)
