"""Can one who has not seen the labels tell the classes from the perturbations alone?

``python -m benchmarks.blind sheets DIR --temperature T --seed N`` ascends on the four sample
photographs towards eight classes and writes, for each photograph, a sheet with the perturbations
around gray in an order that the seed shuffles, and nothing else. Somebody who has seen neither
this package's gallery nor another set of sheets names the class of each cell, each class once per
sheet. ``python -m benchmarks.blind score FILE`` compares: the file holds the sheets' temperature
and seed, who the reader was, and ``answers``, the names for each sheet in the order of its cells.
The same seed gives the same order, so there is no key that a reader could come across.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from benchmarks.provenance import write_json
from captum_pullback import PullbackAscent
from captum_pullback.zoo.network import pixel_bounds
from captum_pullback.zoo.networks import class_index, reference_network
from captum_pullback.zoo.photos import SAMPLES, sample_photo

RESULTS = Path(__file__).with_name("results") / "blind.json"
CLASSES = (
    "tabby", "monarch", "ladybug", "school bus", "goldfish", "pizza", "banana", "king penguin",
)  # fmt: skip
_CELL, _GAP = 320, 10


def orders(seed: int) -> list[tuple[str, list[str]]]:
    """For each sheet: its photograph, and the classes of its cells."""
    generator = random.Random(seed)
    photos = list(SAMPLES)
    generator.shuffle(photos)
    made = []
    for photo in photos:
        classes = list(CLASSES)
        generator.shuffle(classes)
        made.append((photo, classes))
    return made


def perturbations(photo: str, classes: list[str], temperature: float) -> Tensor:
    """Five steps of a tenth of the photograph's norm: (K, 3, H, W), in pixels of [0, 1]."""
    network = reference_network()
    std = torch.tensor(network.std)
    ascent = PullbackAscent(network.model, temperature, relative=True, bounds=pixel_bounds(network))
    inputs = network.preprocess(sample_photo(photo)).expand(len(classes), -1, -1, -1)
    targets = [class_index(network.classes, name) for name in classes]
    changes: Tensor = ascent.attribute(inputs, targets)
    return changes * std.view(3, 1, 1)


def sheet(changes: Tensor) -> Image.Image:
    """Numbered cells in two rows, each on its own scale, enlarged smoothly."""
    columns = len(changes) // 2
    picture = Image.new("RGB", (columns * (_CELL + _GAP), 2 * (_CELL + 3 * _GAP)), "white")
    draw = ImageDraw.Draw(picture)
    for number, change in enumerate(changes):
        scale = change.abs().flatten().quantile(0.99)
        pixels = ((0.5 + change / (2 * scale)).clamp(0, 1) * 255).byte().permute(1, 2, 0)
        row, column = divmod(number, columns)
        x, y = column * (_CELL + _GAP), row * (_CELL + 3 * _GAP)
        draw.text((x + 5, y + 4), f"cell {number + 1}", fill="black")
        cell = Image.fromarray(pixels.numpy())
        picture.paste(cell.resize((_CELL, _CELL), Image.Resampling.BICUBIC), (x, y + 2 * _GAP))
    return picture


def score(reading: dict[str, Any]) -> dict[str, Any]:
    """A reading with how many of its cells were named rightly, on each photograph and in all."""
    right = {}
    for number, (photo, classes) in enumerate(orders(reading["seed"]), 1):
        answers = reading["answers"][f"sheet{number}"]
        if len(answers) != len(classes):
            raise SystemExit(f"sheet{number}: {len(answers)} answers for {len(classes)} cells")
        right[photo] = sum(a == c for a, c in zip(answers, classes, strict=True))
    cells = len(right) * len(CLASSES)
    # By chance each sheet, on which each class stands once, has one cell right on average.
    total = sum(right.values())
    found = {"right": right, "right_in_all": total, "cells": cells, "by_chance": len(right)}
    return reading | found


def main() -> None:
    """Makes sheets, or scores all readings, which become the results."""
    parser = argparse.ArgumentParser(prog="benchmarks.blind", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    make = commands.add_parser("sheets")
    make.add_argument("folder", type=Path)
    make.add_argument("--temperature", type=float, required=True)
    make.add_argument("--seed", type=int, required=True)
    compare = commands.add_parser("score")
    compare.add_argument("readings", type=Path, nargs="+")
    compare.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.command == "score":
        scored = [score(json.loads(file.read_text(encoding="utf-8"))) for file in args.readings]
        write_json(args.out, scored)
        return
    args.folder.mkdir(parents=True, exist_ok=True)
    for number, (photo, classes) in enumerate(orders(args.seed), 1):
        made = sheet(perturbations(photo, classes, args.temperature))
        made.save(args.folder / f"sheet{number}.png")


if __name__ == "__main__":
    main()
