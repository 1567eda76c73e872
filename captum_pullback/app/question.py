"""What can be asked in the app, as values: photograph, network, explanation, ascent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from PIL import Image

from captum_pullback.engine.softness import DEFAULT_TEMPERATURE, Softness
from captum_pullback.engine.spread import Spread
from captum_pullback.study.softness import read_rules
from captum_pullback.zoo.networks import Network
from captum_pullback.zoo.photos import PhotoError, read_photo, sample_photo

#: What is explained: classes at the input, or at a hidden layer; or a hidden unit.
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
        name: The name that is shown, and used in code: of a sample, or of the user's file.
        path: The file in the app's own folder; None for a sample.
        pasted: Whether it was pasted, so that the user has no file of that name.
    """

    name: str
    path: str | None = None
    pasted: bool = False

    def load(self) -> Image.Image:
        """Read it.

        Raises:
            PhotoError: It cannot be read. The message contains its name but not its folder.
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
        network: The network itself. It is never run: see `work.private_copy`.
        name: Its name for ``zoo.load``.
        weights: Its weights for ``zoo.load``.
        device: The device it is on.
        layers: For each layer that can be explained, the shape of its output: (C, H, W) or (F,).
        outputs: The number of classes.
        rules: The rules that the app was started with, as the command line spells them.
    """

    network: Network
    name: str = "embedded"
    weights: str | None = None
    device: str = "cpu"
    layers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    outputs: int = 0
    rules: str = RULES[0]


@dataclass(frozen=True)
class Question:
    """An explanation that is asked for.

    Attributes:
        network: The name of a `Loaded`.
        photo: The photograph.
        what: What is explained; see `What`.
        targets: The classes; no effect on a neuron.
        method: The method, one of `METHODS`.
        temperature: The pullback's temperature, a number or in units of spread.
        pool_temperature: The temperature of its max pooling; None to use ``temperature``.
        layer: The hidden layer, unless ``what`` is "class".
        channel: A neuron's channel in (C, H, W), or its index in (F,).
        everywhere: Whether a channel's neurons are summed over the picture; otherwise the most
                active one is explained.
        rules: What is held of each kind of gate, as the command line spells it.
    """

    network: str
    photo: Photo
    what: What = "class"
    targets: tuple[int, ...] = ()
    method: str = "pullback"
    temperature: float | Spread = DEFAULT_TEMPERATURE
    pool_temperature: float | Spread | None = None
    layer: str = ""
    channel: int = 0
    everywhere: bool = False
    rules: str = RULES[0]

    @property
    def softness(self) -> Softness:
        """Return how soft gates are, and by which rules."""
        return Softness(self.temperature, self.pool_temperature, read_rules(self.rules))
