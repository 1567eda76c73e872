"""The photographs of a run, and which of them stand together in mosaics."""

from __future__ import annotations

import sys

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.compare.data import Photos
from benchmarks.compare.photographs import Reader, device_of
from captum_pullback.study import metrics
from captum_pullback.zoo.networks import Network

PROGRAM = "benchmarks.published"


class Pictures(Reader):
    """The photographs of a run, as the network takes them."""

    def __init__(
        self, network: Network, photos: Photos, labels: list[int], which: list[int], mosaics: int
    ) -> None:
        super().__init__(photos, PROGRAM)
        self.network, self.labels, self.which = network, labels, which
        self.names = [photos.names[number] for number in which]
        self.made = self._mosaics(mosaics)

    def read(self, number: int) -> tuple[Tensor, int] | None:
        """Inputs (1, 3, H, W) and the class; None if it cannot be read."""
        found = self.picture(self.which[number])
        if found is None:
            return None
        inputs = self.network.preprocess(found[0])[None].to(device_of(self.network))
        return inputs, self.labels[found[1]]

    def members(self, mosaic: int) -> tuple[list[Tensor], int, Tensor] | None:
        """Of a mosaic its four inputs, its class, and where that is; None if one is unreadable."""
        assert self.made is not None
        read = [self.read(int(member)) for member in self.made.members[mosaic]]
        inputs = [found[0] for found in read if found is not None]
        if len(inputs) < len(read):
            return None
        return inputs, int(self.made.target[mosaic]), self.made.inside[mosaic]

    def _mosaics(self, count: int) -> metrics.Mosaics | None:
        """Which photographs stand in each mosaic, by number; None if there are too few."""
        if count == 0:
            return None
        labels = self._classes()
        numbers = torch.arange(len(labels)).view(-1, 1, 1, 1)
        try:
            return metrics.mosaics(numbers, labels, count)
        except ValueError as error:
            tqdm.write(f"{PROGRAM}: no Focus: {error}", file=sys.stderr)
            return None

    def _classes(self) -> list[int]:
        """The network's class of each photograph, by its folder, without opening it."""
        folders = {names[0]: number for number, names in enumerate(self.photos.classes)}
        found = []
        for number, name in zip(self.which, self.names, strict=True):
            folder = name.partition("/")[0]
            label = folders.get(folder)
            if label is None:  # torchvision's loaders, which know it
                label = self.photos.read(number)[1]
            found.append(self.labels[label])
        return found
