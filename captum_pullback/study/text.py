"""Names and numbers for people."""

from __future__ import annotations

from typing import SupportsFloat

__all__ = ["duration", "percent", "printable"]


def printable(text: str) -> str:
    """A file's name fit for one line of a terminal or a figure, whatever is in it."""
    return "".join(c if c.isprintable() else "?" for c in text)


def percent(probability: SupportsFloat) -> str:
    """A probability; a dash where there is none."""
    value = float(probability)
    if value != value:
        return "\N{EN DASH}"
    return f"{value:.1%}".replace("%", " %") if value >= 0.001 else "< 0.1 %"


def duration(seconds: float) -> str:
    """A time."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
