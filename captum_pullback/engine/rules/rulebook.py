"""Rules as a user gave them, checked: which one holds for a kind of gate in a module."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from captum_pullback.engine.names import KINDS
from captum_pullback.engine.rules import READINGS, Rule, RulesLike

__all__ = ["Rules"]


class Rules:
    """Answers which rule holds for a kind of gate in a module.

    Args:
        given: As the user gave it.

    Raises:
        TypeError: A key or a value is none of what `RulesLike` names.
        ValueError: A name is neither a kind of gate nor followed by rules of a module, or no
            reading of its kind.
    """

    def __init__(self, given: RulesLike) -> None:
        if not isinstance(given, Mapping):
            raise TypeError(f"rules must be a mapping such as SEMANTIC, not {type(given).__name__}")
        self.modules: dict[str, Rules] = {}
        self.kinds: dict[str, Rule] = {}
        #: Functions that are no operations of PyTorch's with a name, such as custom operators.
        self.functions: dict[Any, Rule] = {}
        for key, value in given.items():
            if isinstance(value, Mapping):
                self.modules[_checked_module(key)] = Rules(value)
            elif isinstance(key, str):
                rule = _checked(key, value)
                if rule is not None:
                    self.kinds[key] = rule
            elif callable(key) and isinstance(value, Rule):
                self.functions[key] = value
            else:
                raise TypeError(
                    f"rules has {key!r}: give names of kinds of gates, or functions, with a Rule"
                )

    def __call__(self, module: str, kind: Any) -> Rule | None:
        """The rule for a kind of gate (or a function) in the module of this name."""
        if self.modules:
            parts = module.split(".")
            for length in range(len(parts), 0, -1):
                inner = self.modules.get(".".join(parts[:length]))
                if inner is not None:
                    return inner("", kind)
        return self.kinds.get(kind) if isinstance(kind, str) else self.functions.get(kind)

    @property
    def is_empty(self) -> bool:
        """Whether no rule is given, so that each derivative is kept: the plain gradient."""
        return not (self.kinds or self.modules or self.functions)

    def check_modules(self, names: Sequence[str]) -> None:
        """Raise ValueError if rules are given for a module that is none of these."""
        for name in self.modules:
            if not any(known == name or known.startswith(name + ".") for known in names):
                raise ValueError(f"rules names {name!r}, but the model has no module of this name")


def _checked_module(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"rules of a module must be keyed by its name, not by {name!r}")
    return name


def _checked(kind: str, value: Any) -> Rule | None:
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, 1)
        raise ValueError(
            f"rules names {kind!r}, which is not a kind of gate"
            + (f" (did you mean {near[0]!r}?)" if near else "")
            + "; rules of a module are a mapping, as in {'features': EXCITATION}"
        )
    if value is None or isinstance(value, Rule):
        return value
    if isinstance(value, str):
        readings = READINGS.get(kind, {})
        if value not in readings:
            known = ", ".join(map(repr, readings)) or "none"
            raise ValueError(f"rules[{kind!r}] is {value!r}; its readings are {known}")
        return readings[value]
    raise TypeError(
        f"rules[{kind!r}] must be a Rule, the name of a reading or None, not {type(value).__name__}"
    )
