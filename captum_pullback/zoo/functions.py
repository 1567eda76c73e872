"""Networks that are made by the user's own functions."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

from torch import nn

from captum_pullback.zoo.classes import close
from captum_pullback.zoo.errors import ZooError
from captum_pullback.zoo.network import Network, preprocessing, with_weights

__all__ = ["from_function"]


def from_function(name: str, weights: str | Path | None) -> Network:
    """Load the network that a function without arguments returns.

    Args:
        name: ``"package.module:function"``.
        weights: None for the function's own, or a file.

    Raises:
        ZooError: There is no such function, it does not return a network, or the file does not fit.
            Exceptions of the function itself are not caught.
    """
    where, _, attribute = name.partition(":")
    if where.endswith(".py"):
        stem = where.removesuffix(".py").replace("/", ".")
        raise ZooError(f"{name!r}: give the module's name, without .py: {stem}:{attribute}")
    try:
        module = importlib.import_module(where)
    except (Exception, SystemExit) as error:  # anything at all: the module is the user's own
        if isinstance(error, ModuleNotFoundError) and f"{where}.".startswith(f"{error.name}."):
            raise ZooError(
                f"{name!r}: there is no module {error.name!r} in this folder, nor is one "
                "installed; run the command in the folder that contains it"
            ) from None
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        raise ZooError(f"{name!r}: cannot import {where!r}: {said}") from error
    if not hasattr(module, attribute):
        raise ZooError(
            f"{name!r}: {where} has no attribute {attribute!r}{close(attribute, dir(module))}"
        )
    made = getattr(module, attribute)
    if not callable(made) or isinstance(made, nn.Module):
        raise ZooError(f"{name!r} is of type {type(made).__name__}, not a function")
    network = made()
    if isinstance(network, nn.Module):
        network = Network(network, (), preprocessing(224, 256), name=name)
    if not isinstance(network, Network):
        kind = type(network).__name__
        raise ZooError(f"{name!r} returned an object of type {kind}, not an nn.Module or a Network")
    network = replace(network, name=network.name or name)
    if weights == "random":
        raise ZooError(f"{name!r} makes its own weights; 'random' is for networks of the zoo")
    return network if weights is None else with_weights(network, weights)
