"""Folders of small pictures: read into memory, and varied at random for training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from captum_pullback.zoo.networks import IMAGENET_MEAN, IMAGENET_STD

SIZE = 64
STATISTICS = (IMAGENET_MEAN, IMAGENET_STD)
Split = tuple[Tensor, Tensor, list[str]]


def listed(folder: Path, names: list[str] | None = None) -> tuple[list[Path], Tensor, list[str]]:
    """The files of a split, their labels ``(N,)``, and the class folders' names, here or given."""
    names = names or sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = [sorted((folder / name).iterdir()) for name in names]
    labels = torch.arange(len(names)).repeat_interleave(torch.tensor([*map(len, files)]))
    return [file for each in files for file in each], labels, names


def read_split(folder: Path) -> Split:
    """Reads one split into memory.

    Returns:
        Pictures ``(N, 3, 64, 64)`` as uint8, labels ``(N,)``, and the class folders' names.
    """
    paths, labels, names = listed(folder)
    pictures = []
    for file in tqdm(paths, desc=folder.name, unit="picture", leave=False):
        with Image.open(file) as image:
            picture = np.asarray(fit(image.convert("RGB")))
        pictures.append(torch.from_numpy(picture.copy()).permute(2, 0, 1))
    return torch.stack(pictures), labels, names


def fit(image: Image.Image) -> Image.Image:
    """Resizes the short side to 64 pixels and crops the middle, where it is not so already."""
    if image.size == (SIZE, SIZE):
        return image
    scale = SIZE / min(image.size)
    width, height = (max(SIZE, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - SIZE) // 2, (height - SIZE) // 2
    return image.crop((left, top, left + SIZE, top + SIZE))


def first_of_each(labels: Tensor, most: int | None) -> Tensor:
    """Return the places of the first ``most`` pictures of each class, or of all for None."""
    classes = range(int(labels.max()) + 1)
    return torch.cat([torch.nonzero(labels == label)[:most, 0] for label in classes])


def read_names(data: Path, folders: list[str]) -> list[str]:
    """The classes' names from ``classes.csv``, or else the folders' names."""
    table = data / "classes.csv"
    if not table.exists():
        return folders
    names = pd.read_csv(table, dtype=str, keep_default_na=False).set_index("wnid")["name"]
    return [names.get(folder, folder) for folder in folders]


def normalize(pictures: Tensor) -> Tensor:
    """Turns uint8 pictures into what the network takes."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in STATISTICS)
    return (pictures.float() / 255 - mean) / std


def augment(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Random flips, and crops of pictures that are reflected by 8 pixels at their borders.

    Args:
        pictures: ``(N, 3, H, W)``, uint8.
        generator: All randomness comes from it.

    Returns:
        Normalized pictures of the same shape.
    """
    n, _, height, width = pictures.shape
    padded = F.pad(normalize(pictures), (8, 8, 8, 8), mode="reflect")
    top, left = torch.randint(17, (2, n, 1), generator=generator)
    columns = torch.arange(width).expand(n, width)
    flip = torch.rand(n, 1, generator=generator) < 0.5
    columns = torch.where(flip, columns.flip(1), columns) + left
    rows = torch.arange(height) + top
    each = torch.arange(n)
    crops = padded[each[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return crops.movedim(3, 1)


def mix(x: Tensor, amount: float, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Blend each picture with another of its batch (mixup, arXiv 1710.09412).

    Args:
        x: ``(N, ...)``.
        amount: The greatest share of the other picture, in [0, 0.5]; 0 leaves ``x`` as it is.
        generator: The source of all randomness.

    Returns:
        The blended pictures, the index ``(N,)`` of each one's other picture, and the other's share.
    """
    share = amount * float(torch.rand((), generator=generator))
    other = torch.randperm(len(x), generator=generator)
    return torch.lerp(x, x[other], share), other, share
