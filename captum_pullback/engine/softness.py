"""Temperature, pool temperature and rules, as one value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from captum_pullback.engine.rules import SEMANTIC, Rule, RulesLike
from captum_pullback.engine.rules.rulebook import Rules
from captum_pullback.engine.spread import Spread, Temperature
from captum_pullback.engine.temperature import TemperatureLike, Temperatures

__all__ = [
    "DEFAULT_TEMPERATURE",
    "PUBLISHED_TEMPERATURE",
    "HasSoftness",
    "Resolved",
    "Resolver",
    "Softness",
]

DEFAULT_TEMPERATURE = Spread(1.0, "output")
"""In units of each gate's mean output, which transfers from one network to another."""

PUBLISHED_TEMPERATURE = 0.3
"""Of the published runs on ImageNet networks, with logistic gates (arXiv 2507.22832 v1 to v4)."""


@dataclass(frozen=True)
class Softness:
    """How soft gates are, and by which rules.

    Attributes:
        temperature: A number from 0 (hard) to inf, a `Spread`, or a mapping from names of
            modules or kinds of gates to such.
        pool_temperature: The same for max pooling; None follows ``temperature``.
        rules: A composite; None is `SEMANTIC`.
    """

    temperature: TemperatureLike = DEFAULT_TEMPERATURE
    pool_temperature: TemperatureLike | None = None
    rules: RulesLike | None = None

    @property
    def is_hard(self) -> bool:
        """Whether each temperature is 0."""
        pools = self.temperature if self.pool_temperature is None else self.pool_temperature
        return all(
            not isinstance(given, (Mapping, Spread)) and given == 0
            for given in (self.temperature, pools)
        )

    @property
    def has_spread(self) -> bool:
        """Whether a temperature is in units of spread, which is that of each example."""
        return _has_spread(self.temperature) or _has_spread(self.pool_temperature)

    @property
    def known(self) -> Resolver | None:
        """The resolver, once one was asked for, if it is the same for any model."""
        return self.__dict__.get("_resolver")

    def resolver(self, modules: Sequence[str]) -> Resolver:
        """What answers for each gate of a model with modules of these names.

        Raises:
            TypeError, ValueError: Something is no temperature or no rule, or names no module.
        """
        if self.known is not None:
            return self.known
        temperatures = Temperatures(self.temperature)
        pools = temperatures
        if self.pool_temperature is not None:
            pools = Temperatures(self.pool_temperature, "pool_temperature")
            pools.check_names(modules)
        temperatures.check_names(modules)
        rules = Rules(SEMANTIC if self.rules is None else self.rules)
        rules.check_modules(modules)
        resolver = Resolver(temperatures, pools, rules)
        if not resolver.needs_names:  # it is the same for any model
            object.__setattr__(self, "_resolver", resolver)
        return resolver

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_resolver"}


def _has_spread(given: Any) -> bool:
    if isinstance(given, Mapping):
        return any(map(_has_spread, given.values()))
    return isinstance(given, Spread)


def _turns(kind: Any, before: Temperature, after: Temperature) -> bool:
    if isinstance(before, Tensor) or isinstance(after, Tensor):
        return before is after
    return before == after or (kind != "attention" and before != 0 and after != 0)


class HasSoftness:
    """What is given temperatures and rules, and shows them as they were given."""

    softness: Softness

    @property
    def temperature(self) -> TemperatureLike:
        """The temperature, as it was given."""
        return self.softness.temperature

    @property
    def pool_temperature(self) -> TemperatureLike | None:
        """The temperature of max pooling, as it was given."""
        return self.softness.pool_temperature


class Resolved(NamedTuple):
    """The rule and the temperature of one kind of gate in one module."""

    rule: Rule | None
    temperature: Temperature


class Resolver:
    """Answers for each kind of gate in each module, and remembers the answer.

    Attributes:
        temperatures: Of gates.
        pools: Of max pools.
        rules: For kinds of gates.
    """

    def __init__(self, temperatures: Temperatures, pools: Temperatures, rules: Rules) -> None:
        self.temperatures, self.pools, self.rules = temperatures, pools, rules
        self._found: dict[tuple[str, Any], Resolved] = {}

    @property
    def needs_names(self) -> bool:
        """Whether the answer depends on the module."""
        return not (
            self.temperatures.is_uniform and self.pools.is_uniform and not self.rules.modules
        )

    def __call__(self, module: str, kind: Any) -> Resolved:
        """The rule and the temperature of a kind of gate in the module of this name."""
        found = self._found.get((module, kind))
        if found is None:
            rule = self.rules(module, kind)
            temperature: Temperature = 0.0
            if rule is not None:
                given = self.pools if rule.group == "pool" else self.temperatures
                temperature = given(module, str(kind), rule.temperature)
            found = self._found[module, kind] = Resolved(rule, temperature)
        return found

    def records_as(self, other: Resolver) -> bool:
        """Whether what has asked here records the same graph with another's temperatures.

        A hard gate is PyTorch's own, attention that is written out is softened in the forward
        pass, and the shape of a tensor is looked at there.
        """
        if other.needs_names and not self.needs_names:
            return False
        try:
            others = {asked: other(*asked).temperature for asked in self._found}
        except ValueError:  # it has no entry, as a forward pass of its own will say
            return False
        # What has had no effect is told at the end of a forward pass of its own.
        return not (self.unused() or other.unused()) and all(
            _turns(kind, self._found[module, kind].temperature, turned)
            for (module, kind), turned in others.items()
        )

    def unused(self) -> list[str]:
        """Entries of temperatures under which no gate has run."""
        given = [self.temperatures]
        if self.pools is not self.temperatures:
            given.append(self.pools)
        return [f"{each.argument}[{name!r}]" for each in given for name in each.unused]
