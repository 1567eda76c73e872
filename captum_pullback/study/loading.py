"""What every command begins with: the network, the photographs and the classes that were asked."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from captum_pullback.commands.terminal import UsageError
from captum_pullback.engine.models import on_copies
from captum_pullback.perturbations import seeded
from captum_pullback.zoo import networks as zoo
from captum_pullback.zoo.networks import Network
from captum_pullback.zoo.photos import SAMPLES, read_photo, sample_photo

__all__ = [
    "check_classes",
    "load_network",
    "load_photo",
    "look",
    "predict",
    "sample_name",
    "suggested_temperature",
    "target_classes",
]


def load_network(args: argparse.Namespace) -> Network:
    """The network of ``--model``, ``--weights``, ``--device`` and ``--seed``.

    Raises:
        UsageError: there is no such device, network or file of weights.
    """
    try:
        torch.zeros(1, device=args.device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split("\n")[0]
        raise UsageError(f"there is no device {args.device!r} here ({reason})") from error
    try:
        with seeded(args.seed):  # for --weights random
            return zoo.load(args.model, args.weights, args.device)
    except zoo.ZooError as error:
        raise UsageError(str(error)) from error


def suggested_temperature(network: Network) -> float:
    """What is known to suit the network, or else what the published ImageNet runs use."""
    return float(network.meta.get("temperature", 0.3))


def check_classes(targets: Sequence[int], count: int) -> None:
    """Makes sure that the network, which has ``count`` classes, has these.

    Raises:
        UsageError: it has not.
    """
    if max(targets, default=0) >= count:
        raise UsageError(f"class {max(targets)} is not within 0 to {count - 1}")


def target_classes(network: Network, names: Sequence[str]) -> list[int]:
    """The numbers of classes; a name that is none is taken to be several, between commas.

    Raises:
        UsageError: no class, or more than one, is called so.
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


def sample_name(photo: str) -> str | None:
    """The sample photograph that is meant, if it is not a file that is."""
    is_sample = Path(photo).stem in SAMPLES and photo in (Path(photo).stem, "grace_hopper.jpg")
    return Path(photo).stem if is_sample and not os.path.exists(photo) else None


def load_photo(photo: str) -> Image.Image:
    """A picture file, or a sample photograph by its name.

    Raises:
        PhotoError: it cannot be read.
    """
    sample = sample_name(photo)
    return read_photo(photo) if sample is None else sample_photo(sample)


def predict(network: Network, args: argparse.Namespace, photo: str) -> tuple[Tensor, Tensor]:
    """A photograph as the network sees it, (C, H, W), and its probabilities (K,), on the CPU.

    Raises:
        PhotoError: it cannot be read.
        UsageError: the network cannot be used.
    """
    inputs, logits = look(network, load_photo(photo), args.device, args.model, photo)
    return inputs[0].cpu(), logits.softmax(dim=0)


def look(
    network: Network, image: Image.Image, device: str, model: str, photo: str
) -> tuple[Tensor, Tensor]:
    """A photograph as the network sees it, (1, C, H, W), and the logits (K,), on the CPU.

    Args:
        network: whose model is on the device.
        image: the photograph.
        device: where the network is.
        model: the network's name, for the message.
        photo: the photograph's, likewise.

    Raises:
        UsageError: the network cannot be used.
    """
    try:
        inputs: Tensor = network.preprocess(image)[None].to(device)
        with torch.no_grad():
            output = on_copies(network.model, inputs)
        if not isinstance(output, Tensor) or output.dim() != 2:
            raise TypeError("its output is no tensor of logits (N, classes)")
    except (RuntimeError, ValueError, TypeError) as error:
        raise UsageError(f"{model} fails on {photo}: {error}") from error
    return inputs, output[0].float().cpu()
