"""Temperatures as users give them: one for all gates, or by module and by kind of gate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, TypeAlias

import torch
from torch import Tensor

from captum_pullback.engine.names import KINDS
from captum_pullback.engine.spread import Spread, Temperature

__all__ = ["TemperatureLike", "Temperatures", "module_entry"]

TemperatureLike: TypeAlias = (
    float | Spread | Mapping[str, float | Tensor | Spread | Mapping[str, float | Tensor | Spread]]
)

_MODULE, _KIND = "module:", "kind:"


def module_entry(name: str) -> str:
    """The key of a mapping of temperatures that means the module, if a kind has its name too."""
    return f"{_MODULE}{name}" if name in KINDS else name


class Temperatures:
    """Looks up the temperature for a kind of gate in a module.

    Args:
        temperature: A number from 0 (hard) to inf, or a `Spread`; or a mapping to such, or to
            tensors that broadcast against the gates' inputs, from a module's name or the
            beginning of names up to a dot (the longest counts), or from a kind of gate such as
            ``"gelu"``; a module's value may be a mapping from kinds again. A module goes before a
            kind, and ``""`` holds for all the rest. What is the name of both is written
            ``"module:relu"`` or ``"kind:relu"``.
        argument: What the caller calls it, for error messages.

    Raises:
        TypeError: A temperature is neither a number nor such a mapping.
        ValueError: A temperature is negative or NaN.
    """

    def __init__(self, temperature: TemperatureLike, argument: str = "temperature") -> None:
        mapped = isinstance(temperature, Mapping)
        given: Mapping[Any, Any] = temperature if mapped else {"": temperature}  # type: ignore
        if not given:
            raise ValueError(f"{argument} is an empty mapping: name modules, or '' for all")
        self.argument = argument
        #: By name, as given; those of kinds are taken out by `check_names`.
        self.modules: dict[str, Temperature | Temperatures] = {}
        self.kinds: dict[str, Temperature] = {}
        for name, value in given.items():
            if not isinstance(name, str):
                raise TypeError(f"{argument} must be keyed by module names, not by {name!r}")
            if isinstance(value, Mapping):
                self.modules[name.removeprefix(_MODULE)] = Temperatures(
                    value, f"{argument}[{name!r}]"
                )
                continue
            checked = _checked(name, value, argument, mapped)
            if name.startswith(_KIND):
                self.kinds[name.removeprefix(_KIND)] = checked
            else:
                self.modules[name.removeprefix(_MODULE)] = checked
        self._explicit = {name.removeprefix(_MODULE) for name in given if _MODULE in name}
        for name in self.kinds:
            if name not in KINDS:
                raise ValueError(f"{argument} names {name!r}, which is not a kind of gate")
        self.used: set[str] = set()

    @property
    def is_uniform(self) -> bool:
        """Whether no entry names a module, and none is a tensor."""
        values = [*self.modules.values(), *self.kinds.values()]
        return set(self.modules) <= {""} and not any(isinstance(v, Tensor) for v in values)

    def check_names(self, modules: Sequence[str]) -> None:
        """Tell kinds of gates from modules.

        Args:
            modules: The names of the model's modules.

        Raises:
            ValueError: An entry names none of these modules and no kind, or both.
        """
        for name in [name for name in self.modules if name]:
            value = self.modules[name]
            is_module = any(known == name or known.startswith(name + ".") for known in modules)
            is_kind = name in KINDS and not isinstance(value, Temperatures)
            if name in self._explicit:
                is_kind = False
            if is_module and is_kind:
                raise ValueError(
                    f"{self.argument} names {name!r}, which is a module of the model and a kind "
                    f"of gate: write '{_MODULE}{name}' or '{_KIND}{name}'"
                )
            if is_kind and not isinstance(value, Temperatures):
                self.kinds[name] = value
                del self.modules[name]
            elif not is_module:
                raise ValueError(self._unknown(name, modules))
            elif isinstance(value, Temperatures):
                value.check_names([])

    def _unknown(self, name: str, modules: Sequence[str]) -> str:
        if not modules:
            return (
                f"{self.argument} names {name!r}, which is not a kind of gate, and "
                "forward_func is a plain callable, which has no modules: pass the "
                "torch.nn.Module, or call it inside `with soften(module, ...)`"
            )
        return (
            f"{self.argument} names {name!r}, but the model has no module of this name, and it "
            f"is not a kind of gate; its modules are {_some(modules)}"
        )

    def __call__(self, module: str, kind: str = "", own: Temperature | None = None) -> Temperature:
        """The temperature of a kind of gate in the module of this name.

        Args:
            module: Its name.
            kind: Of the gate.
            own: The kind's own temperature, which goes before one that holds for all.
        """
        parts = module.split(".") if module else []
        fitting = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
        self.used.update(fitting)
        for name in fitting:
            if name in self.modules:
                found = self.modules[name]
                return found("", kind, own) if isinstance(found, Temperatures) else found
        if kind in self.kinds:
            self.used.add(kind)
            return self.kinds[kind]
        if own is not None:
            return own
        if "" not in self.modules:
            where = repr(module) if module else f"{kind!r} of the model itself"
            raise ValueError(
                f"{self.argument} has no entry for the gates in {where}: name it, or give "
                "'' for all the rest"
            )
        found = self.modules[""]
        return found("", kind, own) if isinstance(found, Temperatures) else found

    @property
    def unused(self) -> list[str]:
        """The entries under which no gate has run."""
        return [name for name in (*self.modules, *self.kinds) if name and name not in self.used]

    @property
    def common(self) -> Temperature:
        """What holds for all the rest."""
        found = self.modules.get("", 0.0)
        return found("") if isinstance(found, Temperatures) else found


def _checked(name: str, value: object, argument: str, mapped: bool) -> Temperature:
    where = f"{argument}[{name!r}]" if mapped else argument
    if isinstance(value, Spread):
        return value if value.scale else 0.0
    if isinstance(value, Tensor) and (mapped or value.numel() == 1):
        if value.is_complex() or value.dtype == torch.bool:
            raise TypeError(f"{where} must hold real numbers, not {value.dtype}")
        if not bool((value >= 0).all()):  # false for NaN as well
            raise ValueError(f"{where} has entries that are negative or NaN; give 0 to inf")
        value = value.detach()
        if value.dim() == 0 or not mapped:
            return abs(float(value))
        if not bool(value.any()):
            return 0.0
        return value.to(torch.promote_types(value.dtype, torch.float32))
    if isinstance(value, Tensor):
        raise TypeError(
            f"{where} is a tensor of shape {tuple(value.shape)}: a tensor belongs to one "
            "module's gates, so give {'module name': tensor, '': number for all the rest}"
        )
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{where} must be a number from 0 to inf, a Spread, or a mapping from module names or "
            f"kinds of gates, not {type(value).__name__}"
        )
    number = float(value)
    if math.isnan(number) or number < 0:
        raise ValueError(f"{where} is {number}; give a number from 0 (hard gates) to inf")
    return abs(number)  # no -0.0


def _some(names: Iterable[str], most: int = 8) -> str:
    names = [name for name in names if name]
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
