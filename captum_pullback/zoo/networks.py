"""The embedded reference network, torchvision's classifiers by name, and their preprocessing."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from captum_pullback.zoo.classes import class_index, close
from captum_pullback.zoo.errors import ZooError
from captum_pullback.zoo.packing import unpack
from captum_pullback.zoo.reference import ReferenceNet
from captum_pullback.zoo.statefiles import fill, read_state

__all__ = ["Network", "ReferenceNet", "ZooError", "class_index", "load", "reference_network"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
EMBEDDED = Path(__file__).with_name("weights") / "reference.pt"


@dataclass(frozen=True)
class Network:
    """A classifier with what is needed to show it a photograph.

    Attributes:
        model: In eval mode; maps ``(N, 3, H, W)`` to logits ``(N, classes)``.
        classes: A name for each logit; empty where nobody knows them.
        preprocess: Turns a PIL image into the model's input, ``(3, input_size, input_size)``.
        mean: What ``preprocess`` subtracts from each channel of a picture in [0, 1].
        std: What it divides by afterwards.
        input_size: In pixels.
        name: What ``load`` knows it by.
        meta: Where the weights come from and what was measured of them.
    """

    model: nn.Module
    classes: tuple[str, ...]
    preprocess: Callable[[Image.Image], Tensor]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    input_size: int = 224
    name: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    def pixels(self, inputs: Tensor) -> Tensor:
        """Undoes the normalisation: model inputs ``(..., 3, H, W)`` to pixels in [0, 1]."""
        mean, std = (inputs.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (inputs * std + mean).clamp(0, 1)


@dataclass(frozen=True)
class Preprocess:
    """An image transform that takes any PIL image, by way of RGB."""

    transform: Callable[[Image.Image], Tensor]

    def __call__(self, image: Image.Image) -> Tensor:
        """Returns the model's input, ``(3, size, size)``."""
        return self.transform(image.convert("RGB"))


def preprocessing(
    size: int,
    resize: int | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Preprocess:
    """Short side to ``resize``, the middle ``size`` square, normalised.

    Args:
        size: Of the result, in pixels.
        resize: To how many pixels the short side is brought before; None for ``size``.
        mean: Of each channel of a picture in [0, 1], subtracted.
        std: Of each channel, by which it is divided afterwards.

    Returns:
        A function from a PIL image of any mode to a tensor (3, size, size).
    """
    steps = [transforms.Resize(resize or size), transforms.CenterCrop(size), transforms.ToTensor()]
    return Preprocess(transforms.Compose([*steps, transforms.Normalize(mean, std)]))


def reference_network(device: str | torch.device = "cpu") -> Network:
    """The small residual network, and its weights, that come with the package.

    Args:
        device: Where the model goes.

    Returns:
        It in eval mode; ``meta`` has its accuracy and the temperature that suits it.

    Raises:
        ZooError: The file of the weights is missing or damaged.
    """
    return read_network(EMBEDDED, "embedded", device)


def load(
    name: str = "embedded",
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
) -> Network:
    """A network by name, in eval mode.

    Args:
        name: ``"embedded"``, a torchvision classifier (``"resnet50"``), or
            ``"package.module:function"``, called without argument for an ``nn.Module`` (whose
            preprocessing is then taken to be ImageNet's at 224 pixels) or a ``Network``.
        weights: None for the network's own, which torchvision downloads unless they are cached;
            the name of one of torchvision's weights (``"IMAGENET1K_V1"``); the file of a state
            dict, as `statefiles.read_state` reads it; or ``"random"``, drawn from torch's global
            generator.
        device: Where the model goes.

    Raises:
        ZooError: Unknown name, failed download, or weights that are damaged or do not fit. What
            a function of one's own raises comes through.
    """
    if name == "embedded":
        network = _embedded(weights)
    elif ":" in name:
        network = _imported(name, weights)
    elif name in names():
        network = _from_torchvision(name, weights)
    else:
        raise ZooError(
            f"no network is called {name!r}{close(name, names())}. There are 'embedded', "
            "torchvision's classifiers, and 'package.module:function'."
        )
    return replace(network, model=network.model.to(device).eval())


def names() -> list[str]:
    """What ``load`` takes besides ``package.module:function``."""
    return ["embedded", *torchvision.models.list_models(module=torchvision.models)]


def read_network(path: Path, name: str, device: str | torch.device = "cpu") -> Network:
    """Reads a packed ``ReferenceNet`` and, from the ``.json`` beside it, all else of a network.

    Raises:
        ZooError: A file is missing or damaged.
    """
    try:
        data = path.read_bytes()
        meta = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        expected = meta["sha256"]
        classes, mean, std = (tuple(meta.pop(key)) for key in ("classes", "mean", "std"))
        size = int(meta.pop("input_size"))
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise ZooError(f"cannot read the weights of {name!r}: {error!r}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise ZooError(
            f"the weights of {name!r} are damaged: {path} has sha256 {found}, not {expected}"
        )
    model, prepare = unpack(data).to(device).eval(), preprocessing(size, None, mean, std)
    return Network(model, classes, prepare, mean, std, size, name, meta)


def _embedded(weights: str | Path | None) -> Network:
    network = reference_network()
    if weights is None:
        return network
    with torch.random.fork_rng(devices=[], enabled=weights != "random"):
        model = ReferenceNet(len(network.classes))
    return _with_weights(replace(network, model=model), weights)


def _from_torchvision(name: str, weights: str | Path | None) -> Network:
    kinds = torchvision.models.get_model_weights(name)
    download = weights is None or weights in kinds.__members__
    known = kinds[weights] if download and weights is not None else kinds.DEFAULT
    settings = {"weights": known} if download else _settings(name, known)
    try:
        with torch.random.fork_rng(devices=[], enabled=weights != "random"):
            model = torchvision.models.get_model(name, **settings)
    except Exception as error:  # of the network, the disk, the checksum or the unpickling
        cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(known.url).name
        raise ZooError(
            f"torchvision's weights of {name!r} could not be loaded: {error}. They are expected "
            f"from {known.url} or as {cache}; where there is no network, give a copy of that "
            "file: weights=FILE, or --weights FILE on the command line."
        ) from error
    shown = known.transforms()
    meta = {key: value for key, value in known.meta.items() if key != "categories"}
    network = Network(
        model,
        tuple(known.meta["categories"]),
        Preprocess(shown),
        tuple(shown.mean),
        tuple(shown.std),
        shown.crop_size[0],
        name,
        {**meta, "weights": str(known)},
    )
    return network if download or weights is None else _with_weights(network, weights)


def _settings(name: str, known: Any) -> dict[str, Any]:
    # What torchvision's builders set by themselves for pretrained weights only.
    if name in ("googlenet", "inception_v3"):
        return {"transform_input": True, "init_weights": False}
    return {"image_size": known.meta["min_size"][0]} if name.startswith("vit_") else {}


def _imported(name: str, weights: str | Path | None) -> Network:
    where, _, attribute = name.partition(":")
    if where.endswith(".py"):
        stem = where.removesuffix(".py").replace("/", ".")
        raise ZooError(f"{name!r}: give the module's name, without .py: {stem}:{attribute}")
    try:
        module = importlib.import_module(where)
    except (Exception, SystemExit) as error:  # of any kind: it is somebody's own module
        if isinstance(error, ModuleNotFoundError) and f"{where}.".startswith(f"{error.name}."):
            raise ZooError(
                f"{name!r}: there is no module {error.name!r} in this folder, nor is one "
                "installed; run the command in the folder that holds it"
            ) from None
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        raise ZooError(f"{name!r}: cannot import {where!r}: {said}") from error
    if not hasattr(module, attribute):
        raise ZooError(
            f"{name!r}: {where} has no attribute {attribute!r}{close(attribute, dir(module))}"
        )
    made = getattr(module, attribute)
    if not callable(made) or isinstance(made, nn.Module):
        raise ZooError(f"{name!r} is no function, but a {type(made).__name__}")
    network = made()
    if isinstance(network, nn.Module):
        network = Network(network, (), preprocessing(224, 256), name=name)
    if not isinstance(network, Network):
        kind = type(network).__name__
        raise ZooError(f"{name!r} returned a {kind}, neither an nn.Module nor a Network")
    network = replace(network, name=network.name or name)
    if weights == "random":
        raise ZooError(f"{name!r} makes its own weights; 'random' is for networks of the zoo")
    return network if weights is None else _with_weights(network, weights)


def _with_weights(network: Network, weights: str | Path) -> Network:
    """Loads the state dict in a file, whole, or leaves the weights random; forgets the old meta."""
    network = replace(network, meta={"weights": str(weights)})
    if weights == "random":
        return network
    try:
        state = read_state(weights)
        if network.name.startswith("densenet"):  # torchvision renames its own files' keys like so
            old = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.")
            state = {old.sub(r"\1", key): value for key, value in state.items()}
        fill(network.model, weights, state)
    except ZooError as error:
        raise ZooError(f"weights of {network.name!r}: {error}") from error
    return network
