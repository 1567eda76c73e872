"""Temperatures and rules as Python arguments."""

from __future__ import annotations

import math
from typing import Any

from captum_pullback.engine.softness import Softness
from captum_pullback.engine.spread import Spread
from captum_pullback.study.softness import rules_text
from captum_pullback.study.spelling import COMPOSITES, NO_RULE, readings

__all__ = ["softness_code"]


def softness_code(softness: Softness) -> tuple[str, set[str]]:
    """Return temperatures and rules as keyword arguments, and the names that they import.

    Default rules are left out.
    """
    given = {"temperature": softness.temperature, "pool_temperature": softness.pool_temperature}
    parts = [f"{name}={_temperature(t)}" for name, t in given.items() if t is not None]
    names = {"Spread" for t in given.values() if isinstance(t, Spread)}
    changes = readings(rules_text(softness.rules))
    composite = changes.pop("")
    if changes or composite != COMPOSITES[-1]:
        names.add(composite.upper())
        parts.append(f"rules={_rules(composite.upper(), changes)}")
    return ", ".join(parts), names


def _temperature(value: Any) -> str:
    if isinstance(value, Spread):
        unit = "" if value.unit == "spread" else f", {value.unit!r}"
        return f"Spread({_temperature(value.scale)}{unit})"
    return repr(float(value)) if math.isfinite(value) else f"float({str(value)!r})"


def _rules(composite: str, changes: dict[str, str]) -> str:
    if not changes:
        return composite
    entries = [f"{kind!r}: {None if r == NO_RULE else r!r}" for kind, r in changes.items()]
    return f"{{**{composite}, {', '.join(entries)}}}"
