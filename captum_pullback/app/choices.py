"""What a network offers to choose from: its classes and its layers."""

from __future__ import annotations

from captum_pullback.app.question import Loaded
from captum_pullback.study.report import class_name

__all__ = ["class_choices", "last_layer", "layer_choices"]


def class_choices(loaded: Loaded) -> list[tuple[str, int]]:
    """Return the classes for the search box."""
    count = len(loaded.network.classes) or loaded.outputs
    return [(class_name(loaded.network, index), index) for index in range(count)]


def layer_choices(loaded: Loaded) -> list[tuple[str, str]]:
    """Return the layers with the shapes of their outputs."""
    times = " \N{MULTIPLICATION SIGN} "
    return [(f"{n} ({times.join(map(str, s))})", n) for n, s in loaded.layers.items()]


def last_layer(loaded: Loaded) -> str | None:
    """Return the last layer whose output has more than one pixel."""
    names = [name for name, s in loaded.layers.items() if len(s) == 3 and s[1] > 1]
    return names[-1] if names else next(iter(loaded.layers), None)
