"""Temperatures and rules as text, and back; checks that they fit a network."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from captum_pullback.engine.models import named_modules
from captum_pullback.engine.rules import EXCITATION, READINGS, SEMANTIC, RulesLike
from captum_pullback.engine.softness import Softness
from captum_pullback.engine.spread import Spread
from captum_pullback.engine.temperature import TemperatureLike
from captum_pullback.study.errors import UsageError
from captum_pullback.study.spelling import NO_RULE, Amount, amounts, readings
from captum_pullback.zoo.networks import Network

__all__ = [
    "UNUSED", "check_softness", "described", "read_rules", "read_temperature", "rules_text",
    "temperature_text", "temperature_words",
]  # fmt: skip

#: The beginning of the engine's warning that no gate ran under an entry of a temperature.
UNUSED = "no gate ran under"

_COMPOSITES: dict[str, RulesLike] = {"excitation": EXCITATION, "semantic": SEMANTIC}


def read_temperature(text: str) -> TemperatureLike:
    """Read a temperature: see `spelling`.

    Raises:
        UsageError: It is not a temperature.
    """
    try:
        found = {
            name: Spread(number, unit) if unit else number  # type: ignore[arg-type]
            for name, (number, unit) in amounts(text).items()
        }
    except ValueError as error:
        raise UsageError(str(error)) from error
    return found[""] if len(found) == 1 else found


def temperature_text(given: TemperatureLike | Tensor, digits: int | None = None) -> str:
    """Format a temperature so that it can be read again.

    Args:
        given: A number, a `Spread`, or a mapping to such; a tensor is shown by its shape.
        digits: The number of digits; None for all.
    """
    if isinstance(given, Mapping):
        rest = [temperature_text(given[""], digits)] if "" in given else []
        named = {name: value for name, value in given.items() if name}
        return ",".join(
            rest + [f"{name}={temperature_text(value, digits)}" for name, value in named.items()]
        )
    if isinstance(given, Tensor) and given.numel() > 1:
        return f"tensor{list(given.shape)}"
    if isinstance(given, Spread):
        return Amount(given.scale, given.unit).text(digits)
    return Amount(float(given)).text(digits)


def temperature_words(given: TemperatureLike | Tensor) -> str:
    """Format a temperature for people, to three digits, as in "1 x mean output"."""
    text = temperature_text(given, 3)
    for unit, name in (("output", "mean output"), ("spread", "spread")):
        text = text.replace(f" {unit}", f" x {name}")
    return text


def read_rules(text: str) -> RulesLike:
    """Read rules: see `spelling`.

    Raises:
        UsageError: It is not a rule, or names an unknown kind of gate or reading.
    """
    try:
        named = readings(text)
    except ValueError as error:
        raise UsageError(str(error)) from error
    composite = _COMPOSITES[named.pop("")]
    for kind, reading in named.items():
        if kind not in READINGS:
            near = difflib.get_close_matches(kind, READINGS, 1)
            raise UsageError(
                f"no kind of gate is called {kind!r}"
                + (f" (did you mean {near[0]!r}?)" if near else "")
                + f"; choose from {', '.join(READINGS)}"
            )
        if reading not in (*READINGS[kind], NO_RULE):
            known = ", ".join((*READINGS[kind], NO_RULE))
            raise UsageError(f"{kind} has no reading {reading!r}; choose from {known}")
    if not named:
        return composite
    changes = {kind: None if name == NO_RULE else name for kind, name in named.items()}
    return {**composite, **changes}


def rules_text(rules: RulesLike | None) -> str:
    """Format rules so that they can be read again; None are the default rules.

    The user's own rules, and those of modules, are named without their content.
    """
    given = SEMANTIC if rules is None else rules
    spelled: list[list[str]] = []
    for name, base in _COMPOSITES.items():
        kinds = _changes(base, given)
        spelled.append([name, *(f"{_name(k)}={_reading(k, given.get(k))}" for k in kinds)])
    return ",".join(sorted(spelled, key=len)[0])


def _changes(base: RulesLike, given: RulesLike) -> list[Any]:
    """Return the kinds for which these rules differ from a composite."""
    kinds = dict.fromkeys((*given, *base))
    return [
        kind for kind in kinds if _reading(kind, given.get(kind)) != _reading(kind, base.get(kind))
    ]


def _reading(kind: Any, rule: Any) -> str:
    if rule is None:
        return NO_RULE
    if isinstance(rule, str):
        return rule
    return next((name for name, known in READINGS.get(kind, {}).items() if known is rule), "own")


def _name(kind: Any) -> str:
    return kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))


def described(softness: Softness) -> str | None:
    """Describe whatever differs from one temperature and the default rules, in a line."""
    parts = []
    if isinstance(softness.temperature, Mapping):
        parts.append(f"temperature {temperature_text(softness.temperature)}")
    if softness.pool_temperature is not None:
        parts.append(f"pool temperature {temperature_text(softness.pool_temperature)}")
    if softness.rules is not None:
        parts.append(f"rules {rules_text(softness.rules)}")
    return f"pullback: {'; '.join(parts)}" if parts else None


def check_softness(network: Network, softness: Softness) -> None:
    """Check that what temperatures name is in a network.

    Raises:
        UsageError: It is not.
    """
    try:
        softness.resolver([name for name, _ in named_modules(network.model)])
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
