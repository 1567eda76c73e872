"""The photographs that are scored: where they come from, their classes and their boxes."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torchvision
from PIL import Image, ImageDraw
from torch import Tensor

from captum_pullback.zoo.networks import Network, ZooError, class_index
from captum_pullback.zoo.photos import PhotoError, read_photo

#: A box in pixels of the upright photograph, both corners inclusive: x0, y0, x1, y1.
Box = tuple[float, float, float, float]

KINDS = ("imagenet", "imagenette", "cifar10")


class DataError(RuntimeError):
    """Photographs, their classes or their boxes could not be had; the message says why."""


@dataclass(frozen=True)
class Photos:
    """A data set in an order of its own.

    Attributes:
        names: One for each photograph, unique.
        read: From the number of a photograph to the picture and the number of its class; it
            raises `PhotoError` where that cannot be read.
        classes: For each class all that it is called, its folder first.
        boxes: By the names of photographs, the boxes around the object; may lack any.
        numbers: The network's number of each class, where the data says so itself.
    """

    names: Sequence[str]
    read: Callable[[int], tuple[Image.Image, int]]
    classes: Sequence[tuple[str, ...]]
    boxes: dict[str, list[Box]] = field(default_factory=dict)
    numbers: Sequence[int] = ()


def load(where: str, boxes: Path | None = None) -> Photos:
    """Opens a data set.

    Args:
        where: A folder with a folder of pictures for each class; one with ``classes.csv``, whose
            columns file, index, wnid and name say the network's class of each picture; or
            ``imagenet:DIR``, ``imagenette:DIR`` or ``cifar10:DIR`` for torchvision's loaders,
            which take what is in DIR and download nothing.
        boxes: A CSV file with the columns file, x0, y0, x1, y1 (inclusive, in pixels), wnid (or
            folder) for the class's folder, and maybe split, of which the folder's name is read.

    Raises:
        DataError: It is not there, or not what it should be.
    """
    kind, _, root = where.partition(":")
    try:
        photos = _torchvision(kind, root) if root and kind in KINDS else _folder(Path(where))
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"no photographs could be had from {where}: {reason}") from error
    if boxes is None:
        return photos
    found = read_boxes(boxes, Path(root or where).name)
    known = {name: found[name] for name in photos.names if name in found}
    return replace(photos, boxes=known)


def _listed(path: Path) -> Photos:
    with (path / "classes.csv").open(newline="", encoding="utf-8") as file:
        try:
            rows = [
                (r["file"], int(r["index"]), (r["wnid"], r["name"])) for r in csv.DictReader(file)
            ]
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"cannot read {path / 'classes.csv'}: {error!r}") from error
    numbers = sorted({number for _, number, _ in rows})
    called = {number: names for _, number, names in rows}

    def read(number: int) -> tuple[Image.Image, int]:
        file, index, _ = rows[number]
        return read_photo(path / file, max_side=1 << 20), numbers.index(index)

    classes = [called[number] for number in numbers]
    return Photos([file for file, *_ in rows], read, classes, numbers=numbers)


def _folder(path: Path) -> Photos:
    if (path / "classes.csv").exists():
        return _listed(path)
    data = torchvision.datasets.ImageFolder(str(path))
    files = [(Path(file), label) for file, label in data.samples]

    def read(number: int) -> tuple[Image.Image, int]:
        file, label = files[number]
        return read_photo(file, max_side=1 << 20), label  # not reduced, for the boxes' sake

    names = [file.relative_to(path).as_posix() for file, _ in files]
    return Photos(names, read, [(name,) for name in data.classes])


def _torchvision(kind: str, root: str) -> Photos:
    data: Any
    if kind == "imagenet":
        data = torchvision.datasets.ImageNet(root, split="val")
        classes = [(w, *names) for w, names in zip(data.wnids, data.classes, strict=True)]
    elif kind == "imagenette":
        data = torchvision.datasets.Imagenette(root, split="val")
        classes = [(w, *names) for w, names in zip(data.wnids, data.classes, strict=True)]
    else:
        data = torchvision.datasets.CIFAR10(root, train=False)
        classes = [(name,) for name in data.classes]

    names = [f"{kind}/{number:06d}" for number in range(len(data))]

    def read(number: int) -> tuple[Image.Image, int]:
        try:
            picture, label = data[number]
            return picture.convert("RGB"), label
        except Exception as error:  # whatever a parser of untrusted bytes may come up with
            reason = " ".join(str(error).split())
            raise PhotoError(f"{names[number]}: cannot be read ({reason})") from error

    return Photos(names, read, classes)


def read_boxes(path: Path, split: str) -> dict[str, list[Box]]:
    """The boxes of each photograph, by ``folder/file``.

    Raises:
        DataError: The file cannot be read, or is not as `load` says.
    """
    boxes: dict[str, list[Box]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row.get("split", split) != split:
                    continue
                folder = row["wnid"] if "wnid" in row else row["folder"]
                x0, y0, x1, y1 = (float(row[key]) for key in ("x0", "y0", "x1", "y1"))
                if not (x0 <= x1 and y0 <= y1):
                    raise ValueError(f"a box of {row['file']} ends before it begins")
                boxes.setdefault(f"{folder}/{row['file']}", []).append((x0, y0, x1, y1))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"cannot read boxes from {path}: {error!r}") from error
    return boxes


def inside(network: Network, picture: Image.Image, boxes: Sequence[Box]) -> Tensor:
    """Which of the network's input pixels lie in a box, (H, W), bool.

    The mask goes through the network's own preprocessing, so it is resized and cropped as the
    picture is.
    """
    mask = Image.new("RGB", picture.size)
    draw = ImageDraw.Draw(mask)
    for box in boxes:
        draw.rectangle(box, fill=(255, 255, 255))
    return network.pixels(network.preprocess(mask)).mean(0) > 0.5


def targets(network: Network, outputs: int, photos: Photos) -> list[int]:
    """The network's number for each class of a data set.

    As the data says; else by the folders that the network was trained on; else by whole names;
    else the same numbers where there are as many classes as outputs, and no name says otherwise;
    else by parts of names.

    Raises:
        DataError: A class of the data is none of the network's, or names and numbers disagree.
    """
    if photos.numbers:
        if max(photos.numbers) >= outputs:
            raise DataError(
                f"{network.name} has {outputs} classes, and the photographs' go to number "
                f"{max(photos.numbers)}"
            )
        return list(photos.numbers)
    folders = list(network.meta.get("folders", ()))
    if folders and all(names[0] in folders for names in photos.classes):
        return [folders.index(names[0]) for names in photos.classes]
    named = [_named(network.classes, names) for names in photos.classes]
    found = [number for number in named if number is not None]
    if len(found) == len(named) == len(set(found)):
        return found
    if folders or len(named) != outputs:
        return [_class(network, names) for names in photos.classes]
    for number, (names, other) in enumerate(zip(photos.classes, named, strict=True)):
        if other not in (None, number):
            raise DataError(
                f"class {number} of the photographs, {' / '.join(names)}, is {network.name}'s "
                f"class {other} by its name, and not all classes are known by name: name the "
                "folders as the network's classes, or explain what it predicts instead "
                "(--target predicted)"
            )
    return list(range(outputs))


def _named(classes: Sequence[str], names: tuple[str, ...]) -> int | None:
    """The number of the one class that bears one of these names, as a whole; or None."""

    def plain(name: str) -> str:
        return " ".join(name.casefold().replace("_", " ").split())

    wanted = set(map(plain, names))
    whole = [{plain(name)} for name in classes]
    synonyms = [set(plain(name).split(", ")) for name in classes]
    for known in (whole, synonyms):
        found = [number for number, called in enumerate(known) if wanted & called]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _class(network: Network, names: tuple[str, ...]) -> int:
    for name in names:
        try:
            return class_index(network.classes, name)
        except ZooError:
            continue
    raise DataError(
        f"{network.name} knows no class {' / '.join(names)}: explain what it predicts "
        "instead (--target predicted)"
    )


def choose(count: int, scored: int) -> list[int]:
    """Photographs to score, at random but always the same; more of them begin with fewer.

    Raises:
        DataError: There are not so many.
    """
    if scored > count:
        raise DataError(
            f"there are {count} photographs, fewer than {scored}: ask for fewer (--images)"
        )
    return torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()[:scored]
