"""What every command begins with: the network, the photographs and the classes that were asked."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from captum_pullback.engine.models import on_copies
from captum_pullback.perturbations import seeded
from captum_pullback.study.errors import ScoreError, UsageError, blamed, own_lines
from captum_pullback.study.predictions import Prediction, predicted, squashes
from captum_pullback.study.text import printable
from captum_pullback.zoo import networks as zoo
from captum_pullback.zoo.networks import Network
from captum_pullback.zoo.photos import SAMPLES, PhotoError, read_photo, sample_photo

__all__ = [
    "Seen",
    "check_classes",
    "load_network",
    "load_photo",
    "look",
    "photographs",
    "sample_name",
    "see",
    "suggested_temperature",
    "target_classes",
]


@dataclass(frozen=True)
class Seen:
    """A photograph as a network sees it.

    Attributes:
        photo: The photograph's name, printable.
        inputs: What the network saw, (C, H, W), on the CPU.
        prediction: What it gave.
    """

    photo: str
    inputs: Tensor
    prediction: Prediction


def load_network(
    name: str = "embedded", weights: str | None = None, device: str = "cpu", seed: int = 0
) -> Network:
    """A network by name, on a device.

    Args:
        name: As `zoo.load` takes it, as well as ``weights``.
        weights: See there.
        device: As torch knows it.
        seed: Of ``weights="random"``.

    Raises:
        UsageError: There is no such device, network or file of weights, or the user's own
            function fails.
    """
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        cause = str(error).split("\n")[0]
        raise UsageError(f"there is no device {device!r} here ({cause})") from error
    try:
        with seeded(seed):
            return zoo.load(name, weights, device)
    except zoo.ZooError as error:
        raise UsageError(str(error), own_lines(error)) from error
    except (Exception, SystemExit) as error:  # of any kind: it is somebody's own function
        raise blamed(error, f"{name} cannot be made") from error


def suggested_temperature(network: Network) -> float:
    """What is known to suit the network, or else what the published ImageNet runs use."""
    return float(network.meta.get("temperature", 0.3))


def check_classes(targets: Sequence[int], count: int) -> None:
    """Makes sure that the network, which has ``count`` classes, has these.

    Raises:
        UsageError: It has not.
    """
    if max(targets, default=0) >= count:
        raise UsageError(f"class {max(targets)} is not within 0 to {count - 1}")


def target_classes(network: Network, names: Sequence[str]) -> list[int]:
    """The numbers of classes; a name that is none is taken to be several, between commas.

    Raises:
        UsageError: No class, or more than one, is called so.
    """
    targets = []
    try:
        for name in names:
            try:
                targets.append(zoo.class_index(network.classes, name))
            except zoo.ZooError:
                if "," not in name:
                    raise
                targets += [zoo.class_index(network.classes, part) for part in name.split(",")]
    except zoo.ZooError as error:
        raise UsageError(str(error)) from error
    return list(dict.fromkeys(targets))


def photographs(names: Sequence[str]) -> list[str]:
    """Names of photographs, a pattern such as ``*.jpg`` replaced by the files that it fits.

    Shells other than Windows's do that themselves. A pattern that fits nothing stays, to be
    missed like any other file.
    """
    found: list[str] = []
    for name in names:
        is_pattern = glob.has_magic(name) and not os.path.lexists(name)
        found += (sorted(glob.glob(name)) if is_pattern else []) or [name]
    return found


def sample_name(photo: str) -> str | None:
    """The sample photograph that is meant, if it is not a file that is."""
    is_sample = Path(photo).stem in SAMPLES and photo in (Path(photo).stem, "grace_hopper.jpg")
    return Path(photo).stem if is_sample and not os.path.exists(photo) else None


def load_photo(photo: str) -> Image.Image:
    """A picture file, or a sample photograph by its name.

    Raises:
        PhotoError: It cannot be read.
    """
    if glob.has_magic(photo) and not os.path.lexists(photo):
        raise PhotoError(f"{photo}: no file fits this pattern")
    sample = sample_name(photo)
    return read_photo(photo) if sample is None else sample_photo(sample)


def see(network: Network, photo: str, device: str = "cpu") -> Seen:
    """Shows the network a photograph.

    Raises:
        PhotoError: It cannot be read.
        ScoreError: The network gives no finite scores for it.
        UsageError: The network cannot be used.
    """
    inputs, prediction = look(network, load_photo(photo), device, network.name, photo)
    return Seen(printable(os.path.basename(photo)), inputs[0].cpu(), prediction)


def look(
    network: Network, image: Image.Image, device: str, model: str, photo: str
) -> tuple[Tensor, Prediction]:
    """A photograph as the network sees it, (1, C, H, W), on its device, and what it gives.

    Args:
        network: Its model is on the device.
        image: The photograph.
        device: Where the network is.
        model: The network's name, for messages.
        photo: The photograph's, likewise.

    Raises:
        ScoreError: The network gives no finite scores.
        UsageError: The network cannot be used.
    """
    try:
        inputs: Tensor = network.preprocess(image)[None].to(device)
        with torch.no_grad():
            output = on_copies(network.model, inputs)
        if not isinstance(output, Tensor) or output.dim() != 2 or not output.numel():
            raise TypeError(f"it gives {_kind(output)}; one tensor (N, classes) is wanted")
        return inputs, predicted(output[0], lambda: squashes(network.model, inputs))
    except ScoreError as error:
        raise ScoreError(f"{model} fails on {photo}: {error}") from error
    except Exception as error:  # of any kind: it is somebody's own module
        raise blamed(error, f"{model} fails on {photo}") from error


def _kind(output: object) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    return f"an object of type {type(output).__name__}"
