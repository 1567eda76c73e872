"""The inputs of every command: the network, the photographs and the classes."""

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
    "target_classes",
]


@dataclass(frozen=True)
class Seen:
    """A photograph as a network sees it.

    Attributes:
        photo: The photograph's name, printable.
        inputs: The network's input, (C, H, W), on the CPU.
        prediction: Its prediction.
    """

    photo: str
    inputs: Tensor
    prediction: Prediction


def load_network(
    name: str = "embedded", weights: str | None = None, device: str = "cpu", seed: int = 0
) -> Network:
    """Load a network by name, on a device.

    Args:
        name: The name for `zoo.load`.
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
        raise UsageError(f"device {device!r} is not available here ({cause})") from error
    try:
        with seeded(seed):
            return zoo.load(name, weights, device)
    except zoo.ZooError as error:
        raise UsageError(str(error), own_lines(error)) from error
    except (Exception, SystemExit) as error:  # anything at all: the function is the user's own
        raise blamed(error, f"{name} cannot be created") from error


def check_classes(targets: Sequence[int], count: int) -> None:
    """Check that the network, which has ``count`` classes, has these.

    Raises:
        UsageError: It has not.
    """
    if max(targets, default=0) >= count:
        raise UsageError(f"class {max(targets)} is not in the range 0 to {count - 1}")


def target_classes(network: Network, names: Sequence[str]) -> list[int]:
    """Return the numbers of classes; an unknown name is split at its commas.

    Raises:
        UsageError: No class, or more than one, has this name.
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
    """Expand patterns such as ``*.jpg`` among names of photographs.

    Shells other than Windows's do that themselves. A pattern that matches nothing stays, to be
    missed like any other file.
    """
    found: list[str] = []
    for name in names:
        is_pattern = glob.has_magic(name) and not os.path.lexists(name)
        found += (sorted(glob.glob(name)) if is_pattern else []) or [name]
    return found


def sample_name(photo: str) -> str | None:
    """Return the name of a sample photograph; None if it is a file or anything else."""
    is_sample = Path(photo).stem in SAMPLES and photo in (Path(photo).stem, "grace_hopper.jpg")
    return Path(photo).stem if is_sample and not os.path.exists(photo) else None


def load_photo(photo: str) -> Image.Image:
    """Read a picture file, or a sample photograph by its name.

    Raises:
        PhotoError: It cannot be read.
    """
    if glob.has_magic(photo) and not os.path.lexists(photo):
        raise PhotoError(f"{photo}: no file matches this pattern")
    sample = sample_name(photo)
    return read_photo(photo) if sample is None else sample_photo(sample)


def see(network: Network, photo: str, device: str = "cpu") -> Seen:
    """Run the network on a photograph.

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
    """Run the network on an image; return its input (1, C, H, W) and its prediction.

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
            raise TypeError(f"it returns {_kind(output)}; expected one tensor (N, classes)")
        return inputs, predicted(output[0], lambda: squashes(network.model, inputs))
    except ScoreError as error:
        raise ScoreError(f"{model} fails on {photo}: {error}") from error
    except Exception as error:  # anything at all: the module is the user's own
        raise blamed(error, f"{model} fails on {photo}") from error


def _kind(output: object) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    return f"an object of type {type(output).__name__}"
