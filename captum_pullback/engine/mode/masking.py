"""Choices by a mask, which are linear if the mask does not depend on the inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from captum_pullback.engine import graph
from captum_pullback.engine.graph import CHOICES
from captum_pullback.engine.mode.state import State, note_left
from captum_pullback.engine.products import carries

__all__ = ["choose", "compare"]


def compare(
    state: State, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """A comparison, whose outcome is remembered if it depends on the inputs."""
    output = func(*args, **kwargs)
    given = (*args, *kwargs.values())
    if any(map(carries, given)) or state.masks.any(given):
        state.masks.add(output)
    return output


def choose(
    state: State, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """A choice, which is linear by a mask that does not depend on the inputs."""
    output = func(*args, **kwargs)
    name, place = CHOICES[func]
    mask = args[place] if len(args) > place else kwargs.get("mask", kwargs.get("condition"))
    if mask in state.masks:
        note_left(state, name, output, (*args, *kwargs.values()))
    else:
        graph.mark_linear(output, (*args, *kwargs.values()))
    return output
