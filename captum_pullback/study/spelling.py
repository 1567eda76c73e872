"""The spelling of temperatures and rules in one line of text. It does not import torch.

A temperature is ``0.3``; ``1 spread`` or ``1 output``, in units of the spread of each gate's inputs
or of its mean output; or ``0.3,gelu=1,conv1=0``, with others for kinds of gates and for modules.
Rules are ``excitation`` or ``semantic``, or ``semantic,max_pool=differentiated,gelu=none``, with
other readings for kinds of gates.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

__all__ = ["COMPOSITES", "NO_RULE", "Amount", "amounts", "readings"]

#: The composites that rules may begin with; the last is the default.
COMPOSITES = ("excitation", "semantic")
#: The reading under which a kind of gate keeps its derivative.
NO_RULE = "none"


class Amount(NamedTuple):
    """One temperature.

    Attributes:
        number: From 0 to inf.
        unit: "spread" or "output", or "" for the gates' inputs.
    """

    number: float
    unit: str = ""

    def text(self, digits: int | None = None) -> str:
        """Format it to so many digits; None for all."""
        text = f"{self.number:.{6 if digits is None else digits}g}"
        if digits is None and float(text) != self.number:
            text = repr(self.number)
        return f"{text} {self.unit}".rstrip()


def amounts(text: str) -> dict[str, Amount]:
    """Return the temperatures in a text by name; "" stands for all other gates.

    Raises:
        ValueError: There is none, one is given twice, or the one for other gates is missing.
    """
    found = {name: _amount(value) for name, value in _entries(text, "temperature").items()}
    if "" not in found:
        raise ValueError(
            f"temperature {text!r} lacks one for all other gates: put it first, as in '0.3,gelu=1'"
        )
    return found


def readings(text: str) -> dict[str, str]:
    """Return the readings in a text by kind of gate, and its composite under "".

    Raises:
        ValueError: It names no composite, or a kind twice.
    """
    found = _entries(text, "rule")
    composite = found.setdefault("", COMPOSITES[-1])
    if composite not in COMPOSITES:
        raise ValueError(
            f"rules begin with {' or '.join(COMPOSITES)}, then readings like gelu=none, "
            f"not {composite!r}"
        )
    return found


def _entries(text: str, what: str) -> dict[str, str]:
    """Split a text at commas, into values by name; the first may have no name."""
    found: dict[str, str] = {}
    for number, part in enumerate(text.split(",")):
        name, equals, value = (piece.strip() for piece in part.rpartition("="))
        if not value or bool(name) != bool(equals) or (number and not name):
            form = " for a kind of gate as NAME=VALUE, separated by commas"
            raise ValueError(f"expected a {what}{form if equals or number else ''}, not {text!r}")
        if name in found:
            raise ValueError(f"{text!r} has two {what}s for {name!r}")
        found[name] = value
    return found


def _amount(text: str) -> Amount:
    match = re.fullmatch(r"(\S+?)\s*(spread|output)?", text)
    try:
        number = float(match[1]) if match else math.nan
    except ValueError:
        number = math.nan
    if match is None or not number >= 0:
        raise ValueError(
            f"a temperature must be a number from 0 to inf, not {text!r}; or in other units, "
            "such as '1 spread' or '1 output'; or several, such as '0.3,gelu=1'"
        )
    return Amount(abs(number), match[2] or "")
