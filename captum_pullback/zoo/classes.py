"""Classes by name or number."""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Sequence
from typing import SupportsIndex

from captum_pullback.zoo.errors import ZooError

__all__ = ["class_index", "close"]


#: So many names can be listed in a line.
_FEW = 8


def class_index(classes: Sequence[str], name_or_number: str | SupportsIndex) -> int:
    """Return the number of a class, given by its number or by its name in any case.

    A whole name is preferred, then one of the names in ``"tabby, tabby cat"``, then the beginning
    or a word of a name, so that ``"cat"`` never matches a catamaran.

    Raises:
        ZooError: No class matches, or more than one.
    """
    if not isinstance(name_or_number, str):
        return _in_range(classes, operator.index(name_or_number))
    wanted = _plain(name_or_number)
    word, plain = re.escape(wanted), [_plain(name) for name in classes]
    rules: tuple[Callable[[str], bool], ...] = (
        lambda name: name == wanted,
        lambda name: wanted in name.split(", "),
        lambda name: re.search(rf"^{word}|(?<!\w){word}(?!\w)", name) is not None,
    )
    for rule in rules if wanted else ():
        found = [index for index, name in enumerate(plain) if rule(name)]
        if len(found) == 1:
            return found[0]
        if found:
            meant = ", ".join(f"{index} ({classes[index]})" for index in found[:8])
            raise ZooError(f"{name_or_number!r} may mean several classes: {meant}")
        if re.fullmatch(r"[+-]?\d{1,18}", wanted):
            return _in_range(classes, int(wanted))
    if not classes:
        raise ZooError(f"no class is called {name_or_number!r}: these classes have only numbers")
    hint = close(wanted, plain)
    if not hint and len(classes) <= _FEW:
        hint = f"; the classes are {', '.join(map(repr, classes))}"
    raise ZooError(f"no class is called {name_or_number!r}{hint}")


def close(name: str, known: Sequence[str]) -> str:
    """Return the end of a message that suggests known names similar to this one."""
    found = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    return f" (did you mean {' or '.join(map(repr, found))}?)" if found else ""


def _in_range(classes: Sequence[str], number: int) -> int:
    if number < 0 and not classes:
        raise ZooError(f"class {number}: classes without names are numbered from 0")
    if number < 0 or (classes and number >= len(classes)):
        raise ZooError(f"class {number} is not in the range 0 to {len(classes) - 1}")
    return number


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())
