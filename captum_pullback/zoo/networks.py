"""The registry: networks by name, and the embedded one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from captum_pullback.zoo import vision
from captum_pullback.zoo.classes import class_index, close
from captum_pullback.zoo.errors import ZooError
from captum_pullback.zoo.functions import from_function
from captum_pullback.zoo.hubs import from_hugging_face, from_timm
from captum_pullback.zoo.imagenet import efficientnet_lite0
from captum_pullback.zoo.network import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Network,
    Preprocess,
    preprocessing,
    with_weights,
)
from captum_pullback.zoo.packing import unpack
from captum_pullback.zoo.reference import ReferenceNet

__all__ = [
    "EMBEDDED",
    "HUBS",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Network",
    "Preprocess",
    "ReferenceNet",
    "ZooError",
    "class_index",
    "load",
    "names",
    "preprocessing",
    "read_network",
    "reference_network",
]

EMBEDDED = Path(__file__).with_name("weights") / "reference.pt"


def reference_network(device: str | torch.device = "cpu") -> Network:
    """Load the small residual network, and its weights, that come with the package.

    Args:
        device: The device of the model.

    Returns:
        The network in eval mode; ``meta`` has its accuracy.

    Raises:
        ZooError: The weights' file is missing or damaged.
    """
    return read_network(EMBEDDED, "embedded", device)


def load(
    name: str = "embedded",
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
) -> Network:
    """Load a network by name, in eval mode.

    Args:
        name: ``"embedded"``; ``"efficientnet_lite0"``, an ImageNet network from the extra
            ``imagenet``; a torchvision classifier (``"resnet50"``); ``"timm:NAME"`` or
            ``"hf:NAME"``; or ``"package.module:function"``, called without argument for an
            ``nn.Module`` (whose preprocessing is then taken to be ImageNet's at 224 pixels) or a
            ``Network``.
        weights: None for the network's own, which torchvision downloads unless they are cached;
            the name of one of torchvision's weights (``"IMAGENET1K_V1"``); the file of a state
            dict, as `statefiles.read_state` reads it; or ``"random"``, drawn from torch's global
            generator.
        device: The device of the model.

    Raises:
        ZooError: Unknown name, failed download, or weights that are damaged or do not fit. What
            the user's own function raises is not caught.
    """
    if name in _NAMED:
        network = _NAMED[name](weights)
    elif (prefix := name.partition(":")[0]) in HUBS and ":" in name:
        network = HUBS[prefix](name, weights)
    elif ":" in name:
        network = from_function(name, weights)
    elif name in vision.names():
        network = vision.from_torchvision(name, weights)
    else:
        raise ZooError(
            f"no network is called {name!r}{close(name, names())}. The networks are "
            f"{', '.join(map(repr, _NAMED))}, torchvision's classifiers, 'timm:NAME', 'hf:NAME', "
            "and 'package.module:function'."
        )
    return replace(network, model=network.model.to(device).eval())


def names() -> list[str]:
    """Return the names that ``load`` takes, apart from those with a colon."""
    return [*_NAMED, *vision.names()]


def read_network(path: Path, name: str, device: str | torch.device = "cpu") -> Network:
    """Read a packed network and, from the ``.json`` beside it, all else of a network.

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
    return with_weights(replace(network, model=model), weights)


#: By whole name: functions from ``weights`` to the network on the CPU.
_NAMED: dict[str, Callable[[str | Path | None], Network]] = {
    "embedded": _embedded,
    "efficientnet_lite0": efficientnet_lite0,
}

#: By what comes before a colon: functions from name and ``weights`` to the network.
HUBS: dict[str, Callable[[str, str | Path | None], Network]] = {
    "timm": from_timm,
    "hf": from_hugging_face,
}
