"""How temperatures and rules are spelled in one line of text. It needs no torch.

A temperature is ``0.3``; ``1 spread``, in units of each gate's spread; or ``0.3,gelu=1,conv1=0``,
with others for kinds of gates and for modules. Rules are ``excitation`` or ``semantic``, or
``semantic,max_pool=differentiated,gelu=none``, with other readings for kinds of gates.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

__all__ = ["COMPOSITES", "NO_RULE", "Amount", "amounts", "readings"]

#: What rules may begin with; the last is the default.
COMPOSITES = ("excitation", "semantic")
#: The reading that says that a kind of gate keeps its derivative.
NO_RULE = "none"


class Amount(NamedTuple):
    """One temperature.

    Attributes:
        number: From 0 to inf.
        is_spread: Whether it is in units of spread.
    """

    number: float
    is_spread: bool = False

    def text(self, digits: int | None = None) -> str:
        """How it is spelled, to so many digits; None for all."""
        text = f"{self.number:.{6 if digits is None else digits}g}"
        if digits is None and float(text) != self.number:
            text = repr(self.number)
        return f"{text} spread" if self.is_spread else text


def amounts(text: str) -> dict[str, Amount]:
    """The temperatures that a text names, "" being all the rest.

    Raises:
        ValueError: It names none, or one twice, or not what holds for the rest.
    """
    found = {name: _amount(value) for name, value in _entries(text, "temperature").items()}
    if "" not in found:
        raise ValueError(
            f"temperature {text!r} has none for all the rest: begin with it, as in '0.3,gelu=1'"
        )
    return found


def readings(text: str) -> dict[str, str]:
    """The composite that a text begins with, under "", and the readings for kinds of gates.

    Raises:
        ValueError: It names no composite, or a kind twice.
    """
    found = _entries(text, "rule")
    composite = found.setdefault("", COMPOSITES[-1])
    if composite not in COMPOSITES:
        raise ValueError(
            f"rules are {' or '.join(COMPOSITES)}, and then such as gelu=none, not {composite!r}"
        )
    return found


def _entries(text: str, what: str) -> dict[str, str]:
    """The parts between commas, by name; the first may have none."""
    found: dict[str, str] = {}
    for number, part in enumerate(text.split(",")):
        name, equals, value = (piece.strip() for piece in part.rpartition("="))
        if not value or bool(name) != bool(equals) or (number and not name):
            form = " for a kind of gate is wanted as NAME=VALUE, with commas between"
            raise ValueError(f"a {what}{form if equals or number else ' is wanted'}, not {text!r}")
        if name in found:
            raise ValueError(f"{text!r} has two {what}s for {name!r}")
        found[name] = value
    return found


def _amount(text: str) -> Amount:
    match = re.fullmatch(r"(\S+?)\s*(spread)?", text)
    try:
        number = float(match[1]) if match else math.nan
    except ValueError:
        number = math.nan
    if match is None or not number >= 0:
        raise ValueError(
            f"a temperature is a number from 0 to inf, not {text!r}; or one in units of spread, "
            "such as '1 spread'; or several, such as '0.3,gelu=1'"
        )
    return Amount(abs(number), match[2] is not None)
