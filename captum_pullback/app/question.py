"""What can be asked in the app, as values: a photograph, a network, an explanation, an ascent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from PIL import Image

from captum_pullback.engine.softness import Softness
from captum_pullback.engine.spread import Spread
from captum_pullback.study.softness import read_rules
from captum_pullback.zoo.networks import Network
from captum_pullback.zoo.photos import PhotoError, read_photo, sample_photo

#: What is explained: the score of classes, at the input or at a hidden layer; or a hidden unit.
What: TypeAlias = Literal["class", "neuron", "layer"]
#: A unit of a layer, as `NeuronExcitationPullback.attribute` takes it.
Selector: TypeAlias = tuple[int | slice, ...]

METHODS = ("pullback", "saliency", "ig", "smoothpullback")
"""Those of the command line's methods that the app offers."""

RULES = ("semantic", "excitation")
"""The composites of rules, as the command line spells them; the first is the default."""


@dataclass(frozen=True)
class Photo:
    """A photograph.

    Attributes:
        name: for people, and for the code: of a sample, or of the file that was given.
        path: of the file, in the app's own folder; None for a sample.
        pasted: whether there is no file of that name for the reader of the code to have.
    """

    name: str
    path: str | None = None
    pasted: bool = False

    def load(self) -> Image.Image:
        """Reads it.

        Raises:
            PhotoError: it cannot be read; the message has its name, and not its folder.
        """
        if self.path is None:
            return sample_photo(self.name)
        try:
            return read_photo(self.path)
        except PhotoError as error:
            raise PhotoError(str(error).replace(self.path, self.name)) from error


@dataclass(frozen=True)
class Loaded:
    """A network that the app was started with.

    Attributes:
        network: itself. It is never run: see `work.private`.
        name: what ``zoo.load`` takes for it.
        weights: what it was given besides, as for ``device``.
        device: where it is.
        layers: for each layer that may be looked into, the shape of its output: (C, H, W) or (F,).
        temperature: what suits it.
        outputs: how many classes it has.
        rules: those that the app was started with, as the command line spells them.
    """

    network: Network
    name: str = "embedded"
    weights: str | None = None
    device: str = "cpu"
    layers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    temperature: float = 0.3
    outputs: int = 0
    rules: str = RULES[0]


@dataclass(frozen=True)
class Question:
    """An explanation that is asked for.

    Attributes:
        network: the name of a `Loaded`.
        photo: what is looked at.
        what: see `What`.
        targets: classes; without effect on a neuron.
        method: one of `METHODS`.
        temperature: of the pullback, a number or in units of spread.
        pool_temperature: of its max pooling; None follows ``temperature``.
        layer: the hidden layer, where ``what`` is no class.
        channel: of a neuron: its channel in (C, H, W), or its number in (F,).
        everywhere: whether a channel's neurons are summed over the picture; or else the one that
            is most active.
        rules: what is held of each kind of gate, as the command line spells it.
    """

    network: str
    photo: Photo
    what: What = "class"
    targets: tuple[int, ...] = ()
    method: str = "pullback"
    temperature: float | Spread = 0.3
    pool_temperature: float | Spread | None = None
    layer: str = ""
    channel: int = 0
    everywhere: bool = False
    rules: str = RULES[0]

    @property
    def softness(self) -> Softness:
        """How soft gates are, and by which rules."""
        return Softness(self.temperature, self.pool_temperature, read_rules(self.rules))
