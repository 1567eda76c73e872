"""torchvision's classifiers by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor

from captum_pullback.zoo.errors import ZooError
from captum_pullback.zoo.network import Network, Preprocess, with_weights
from captum_pullback.zoo.statefiles import read_state

__all__ = ["from_torchvision", "names"]


def names() -> list[str]:
    """Return the names of torchvision's classifiers."""
    return list(torchvision.models.list_models(module=torchvision.models))


def from_torchvision(name: str, weights: str | Path | None) -> Network:
    """Load one of torchvision's classifiers, with its weights' preprocessing and classes.

    Args:
        name: One of ``names()``.
        weights: None for the best; the name of others (``"IMAGENET1K_V1"``); a file;
            or ``"random"``.

    Raises:
        ZooError: The download fails, or the file does not fit.
    """
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
            f"from {known.url} or as {cache}; offline, give a copy of that "
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
    if download or weights is None:
        return network
    return with_weights(network, weights, _renamed(name, weights))


def _renamed(name: str, weights: str | Path) -> dict[str, Tensor] | None:
    # torchvision renames the keys of its own old DenseNet files in this way.
    if weights == "random" or not name.startswith("densenet"):
        return None
    old = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.")
    return {old.sub(r"\1", key): value for key, value in read_state(weights).items()}


def _settings(name: str, known: Any) -> dict[str, Any]:
    # What torchvision's builders set by themselves for pretrained weights only.
    if name in ("googlenet", "inception_v3"):
        return {"transform_input": True, "init_weights": False}
    return {"image_size": known.meta["min_size"][0]} if name.startswith("vit_") else {}
