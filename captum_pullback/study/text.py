"""Formatting of names and numbers."""

from __future__ import annotations

from typing import SupportsFloat

__all__ = ["duration", "percent", "printable"]


def printable(text: str) -> str:
    """Make any file's name fit for one line of a terminal or a figure."""
    return "".join(c if c.isprintable() else "?" for c in text)


def percent(probability: SupportsFloat) -> str:
    """Format a probability; NaN is a dash."""
    value = float(probability)
    if value != value:
        return "\N{EN DASH}"
    return f"{value:.1%}".replace("%", " %") if value >= 0.001 else "< 0.1 %"


def duration(seconds: float) -> str:
    """Format a time."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
