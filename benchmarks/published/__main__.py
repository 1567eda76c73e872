"""Measures by the protocol of arXiv 2507.22832 v6, and prints our numbers beside its own.

``python -m benchmarks.published --model resnet50 --data DIR --out FILE.json``, with ImageNet's
validation set in DIR, runs on one device. Killed at any moment, the same command goes on where it
was. Under ``torchrun --nproc-per-node N -m benchmarks.published ...`` photographs are shared.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.compare import data
from benchmarks.compare.data import Photos
from benchmarks.compare.photographs import device_of
from benchmarks.compare.store import Store
from benchmarks.compare.workers import Workers, local_device, run_command
from benchmarks.provenance import checkpoint_hash, versions
from benchmarks.provenance import device as device_in_words
from benchmarks.published import scoring
from benchmarks.published.pictures import PROGRAM, Pictures
from benchmarks.published.protocol import METHODS, READ, SOURCES, STATED, Scaled
from benchmarks.published.report import report, rows
from captum_pullback.commands.arguments import positive_count
from captum_pullback.outputs import replacing, writable
from captum_pullback.study.methods import Attribute
from captum_pullback.zoo import networks as zoo
from captum_pullback.zoo.networks import Network


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    return run_command(_run, parser().parse_args(argv), PROGRAM)


def _run(args: argparse.Namespace, here: Workers) -> int:
    out = args.out or Path(f"published_{_plain(args.model)}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out = writable(os.fspath(out), (".json",))
    photos = data.load(args.data)
    count = min(args.images, len(photos.names))
    which = data.choose(len(photos.names), count)
    network, labels = _load(args, photos)
    attributes, refused = _attributes(network, args.methods)
    mosaics = args.mosaics if args.mosaics is not None else count
    pictures = Pictures(network, photos, labels, which, mosaics)
    description = {
        "model": args.model, "weights": str(network.meta.get("weights", "")),
        "checkpoint": checkpoint_hash(network.model), "methods": list(attributes),
        "photographs": pictures.names,
        "mosaics": 0 if pictures.made is None else len(pictures.made.target),
        "versions": versions(), "stated": STATED, "read": READ,
    }  # fmt: skip
    store = Store(args.work or out.with_name(out.name + ".work"))
    if not here.first:
        _measure(store, here, pictures, attributes, description["mosaics"])
        return 0
    with store.locked():
        store.describe("settings", description)
        _measure(store, here, pictures, attributes, description["mosaics"])
        scores = _gathered(store)
    result = {
        "model": args.model,
        "device": device_in_words(local_device(args.device)),
        **{key: value for key, value in description.items() if key != "photographs"},
        "images": count,
        "refused": refused,
        "rows": list(rows(args.model, list(attributes), scores)),
    }
    with replacing(out) as file:
        file.write((json.dumps(result, indent=1) + "\n").encode())
    print(report(result))
    print(f"wrote {out}")
    return 0


def _load(args: argparse.Namespace, photos: Photos) -> tuple[Network, list[int]]:
    """The network on pixels in [-1, 1], and its number for each class of the photographs."""
    name, own = SOURCES.get(args.model, (args.model, None))
    if args.weights == "random":
        torch.manual_seed(0)
    network = zoo.load(name, args.weights or own, device=local_device(args.device))
    probe = torch.zeros(1, 3, network.input_size, network.input_size, device=device_of(network))
    with torch.no_grad():
        outputs = network.model(probe).shape[1]
    labels = data.targets(network, outputs, photos)
    model = Scaled(network).to(device_of(network)).eval()

    def preprocess(picture: Any, prepare: Network = network) -> Tensor:
        return prepare.pixels(prepare.preprocess(picture)) * 2 - 1

    half = (0.5, 0.5, 0.5)
    return replace(network, model=model, preprocess=preprocess, mean=half, std=half), labels


def _attributes(network: Network, names: list[str]) -> tuple[dict[str, Attribute], dict[str, str]]:
    """What attributes by each method, and why others cannot."""
    attributes, refused = {}, {}
    for name in names:
        try:
            attributes[name] = METHODS[name].make(network)
        except ValueError as error:
            refused[name] = str(error)
    return attributes, refused


def _measure(
    store: Store, here: Workers, pictures: Pictures, attributes: dict[str, Attribute], mosaics: int
) -> None:
    """All units that are not done yet, this process's share of them."""
    here.wait("waiting for the settings")
    done, network = here.finished(store), pictures.network
    units = [*enumerate(pictures.names), *((n, f"mosaic {n}") for n in range(mosaics))]
    todo = [unit for unit in enumerate(units) if (network.name, unit[1][1]) not in done]
    with store.writer(here.rank) as write:
        for place, (number, name) in here.share(todo, network.name):
            if place < len(pictures.names):
                read = pictures.read(number)
                scores = read and scoring.photograph(network, attributes, *read, name)
            else:
                members = pictures.members(number)
                scores = members and scoring.mosaic(attributes, *members)
            if scores is not None:
                write((network.name, name), scores)
    here.wait("waiting for the last photographs")


def _gathered(store: Store) -> dict[tuple[str, str], list[float]]:
    """The values by method and metric, in the order of the units' names."""
    found: dict[tuple[str, str], list[float]] = {}
    for _, scores in sorted(store.done().items()):
        for score in scores:
            found.setdefault((score.method, score.metric), []).append(score.value)
    return found


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--model",
        required=True,
        help=f"{', '.join(SOURCES)}; or another that the zoo knows, of which nothing was published",
    )
    add(
        "--data",
        required=True,
        help="ImageNet's validation set: imagenet:DIR as torchvision has it, or a folder of class "
        "folders",
    )
    add("--weights", help="a file, torchvision's name of weights, or random (default: its own)")
    add("--out", type=Path, help="the result (default: published_MODEL.json)")
    add("--work", type=Path, help="folder for what is finished (default: OUT.work)")
    add("--images", type=positive_count, default=1000, help="photographs (default: %(default)s)")
    add("--mosaics", type=int, help="mosaics for Focus (default: as many as photographs)")
    add("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), metavar="METHOD")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    add("--threads", type=positive_count, default=1, help="of each process")
    return parser


if __name__ == "__main__":
    sys.exit(main())
