"""The photographs of a run, as its networks take them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from benchmarks.compare import data, scoring
from benchmarks.compare.data import Photos
from benchmarks.compare.scoring import Case, Plan, derive
from benchmarks.compare.workers import RunError
from captum_pullback.zoo.networks import Network
from captum_pullback.zoo.photos import PhotoError


@dataclass(frozen=True)
class DataSet:
    """Photographs, and the networks that they are shown to.

    Attributes:
        data: As `data.load` takes it.
        networks: Names for `zoo.load`; ``"reference"`` is the embedded one.
        images: How many photographs are scored.
        repeated: On how many of them the metrics are measured that run a method again.
        mosaics: How many of them are put into mosaics; none, if the objects' boxes are known.
        averaged: On how many of them methods that average over noise are measured.
    """

    data: str
    networks: tuple[str, ...]
    images: int
    repeated: int
    mosaics: int
    averaged: int


@dataclass(frozen=True)
class Settings:
    """What decides the numbers.

    Attributes:
        sets: What is shown to what.
        boxes: As `data.load` takes it.
        predicted: Whether the predicted class is explained instead of the photograph's own.
        cost_batch: Photographs in each batch whose cost is measured, and ``cost_rounds`` of these.
        plan: All else.
    """

    sets: tuple[DataSet, ...]
    boxes: str | None
    predicted: bool
    cost_batch: int
    cost_rounds: int
    device: str
    threads: int
    plan: Plan


def device_of(network: Network) -> torch.device:
    """Where a network's parameters are."""
    return next(network.model.parameters()).device


class Reader:
    """Reads photographs; those that cannot be read are left out, which is said once on stderr.

    Args:
        photos: A data set.
        program: Which leaves them out.
    """

    def __init__(self, photos: Photos, program: str) -> None:
        self.photos, self.program = photos, program
        self._unreadable: set[str] = set()

    def picture(self, number: int) -> tuple[Image.Image, int] | None:
        """A photograph and its class, or None if it cannot be read."""
        try:
            return self.photos.read(number)
        except PhotoError as error:
            if str(error) not in self._unreadable:
                self._unreadable.add(str(error))
                tqdm.write(f"{self.program}: left out: {error}", file=sys.stderr)
            return None


class Source(Reader):
    """The photographs of a data set.

    Raises:
        data.DataError: They could not be had.
    """

    def __init__(self, chosen: DataSet, settings: Settings) -> None:
        boxes = None if settings.boxes is None else Path(settings.boxes)
        super().__init__(data.load(chosen.data, boxes), "benchmarks.compare")
        self.order = data.choose(len(self.photos.names), len(self.photos.names))
        self.scored = data.choose(len(self.photos.names), chosen.images)
        self.repeated, self.averaged = chosen.repeated, chosen.averaged
        self.mosaics = 0 if self.photos.boxes else chosen.mosaics
        self.predicted, self.seed = settings.predicted, settings.plan.seed

    def names(self) -> list[str]:
        """Of the photographs to score, in their order."""
        return [self.photos.names[number] for number in self.scored]

    def case(self, network: Network, number: int) -> Case | None:
        """One photograph, by its number among those to score; None if it cannot be read."""
        which = self.scored[number]
        name = self.photos.names[which]
        read = self.picture(which)
        if read is None:
            return None
        picture, label = read
        inputs = network.preprocess(picture)[None].to(device_of(network))
        inside = None
        if name in self.photos.boxes:
            inside = data.inside(network, picture, self.photos.boxes[name])
            inside = inside if inside.any() else None  # cropped away
        made = self._mosaic(network, number, inputs, label) if number < self.mosaics else None
        target = int(self.targets(network, inputs, [label])[0])
        again, averaged = number < self.repeated, number < self.averaged
        return Case(name, inputs, target, inside, made, again, averaged)

    def _mosaic(
        self, network: Network, number: int, inputs: Tensor, label: int
    ) -> tuple[Tensor, Tensor]:
        """A photograph with the next three of other classes, at a place drawn at random."""
        pictures, labels = [inputs], {label}
        for which in (self.order[number:] + self.order[:number])[1:]:
            if len(pictures) == 4:
                break
            read = self.picture(which)
            if read is not None and read[1] not in labels:
                pictures.append(network.preprocess(read[0])[None].to(inputs))
                labels.add(read[1])
        if len(pictures) < 4:
            raise RunError("mosaics need photographs of four classes, or --without mosaic_share")
        return scoring.mosaic(pictures, derive(self.seed, self.names()[number], "mosaic") % 4)

    def batch(self, network: Network, which: Iterable[int], most: int) -> tuple[Tensor, Tensor]:
        """Inputs (N, C, H, W) and targets (N,) of the first so many that can be read."""
        readable = (pair for number in which if (pair := self.picture(number)) is not None)
        pairs = list(islice(readable, most))
        if not pairs:
            raise RunError("none of the photographs could be read")
        inputs = torch.stack([network.preprocess(p) for p, _ in pairs]).to(device_of(network))
        return inputs, self.targets(network, inputs, [label for _, label in pairs])

    @torch.no_grad()
    def targets(self, network: Network, inputs: Tensor, labels: list[int]) -> Tensor:
        """The classes to be explained."""
        output = network.model(inputs)
        if self.predicted:
            return torch.argmax(output, 1)
        numbers = data.targets(network, output.shape[1], self.photos)
        return torch.tensor([numbers[label] for label in labels], device=inputs.device)
