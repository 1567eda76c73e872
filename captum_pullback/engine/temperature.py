"""Temperatures: one number, or one per module, per channel, per neuron."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Real

import torch
from torch import Tensor

__all__ = ["TemperatureLike", "Temperatures"]

TemperatureLike = float | Mapping[str, float | Tensor]


class Temperatures:
    """Answers which temperature holds for the gates of which module.

    Args:
        temperature: A number from 0 (hard) to inf; or a mapping from a module's name, or the
            beginning of names up to a dot, to a number or to a tensor that broadcasts against
            the gates' inputs. The longest name counts; ``""`` holds for all the rest.
        argument: What the caller calls it, for error messages.

    Raises:
        TypeError: Something is neither a number nor such a mapping.
        ValueError: A temperature is negative or NaN.
    """

    def __init__(self, temperature: TemperatureLike, argument: str = "temperature") -> None:
        entries = dict(temperature) if isinstance(temperature, Mapping) else {"": temperature}
        if not entries:
            raise ValueError(f"{argument} is an empty mapping: name modules, or '' for all")
        self.argument = argument
        self.entries = {
            name: _checked(name, value, argument, isinstance(temperature, Mapping))
            for name, value in entries.items()
        }
        self.uniform = set(self.entries) == {""} and not isinstance(self.entries[""], Tensor)
        self._found: dict[str, float | Tensor] = {}

    def check_names(self, modules: Iterable[str]) -> None:
        """Raise ValueError if an entry names none of these modules."""
        wanted = [name for name in self.entries if name]
        if not wanted:
            return
        known = list(modules)
        if not known:
            raise ValueError(
                f"{self.argument} names modules ({', '.join(map(repr, wanted))}), but "
                "forward_func is a plain callable, which has none: pass the torch.nn.Module, or "
                "call it inside `with soften(module, ...)`"
            )
        for name in wanted:
            if not any(module == name or module.startswith(name + ".") for module in known):
                raise ValueError(
                    f"{self.argument} names {name!r}, but the model has no module of this name; "
                    f"its modules are {_some(known)}"
                )

    def __call__(self, module: str) -> float | Tensor:
        """The temperature of the gates that run in the module of this name."""
        found = self._found.get(module)
        if found is None:
            found = self._found[module] = self.entries[self.entry(module)]
        return found

    def entry(self, module: str) -> str:
        """The key that holds for this module: the longest that its name begins with."""
        parts = module.split(".")
        for length in range(len(parts), 0, -1):
            if (name := ".".join(parts[:length])) in self.entries:
                return name
        if "" not in self.entries:
            raise ValueError(
                f"{self.argument} has no entry for the gates in {module!r}: name it, or give "
                "'' for all the rest"
            )
        return ""


def _checked(name: object, value: object, argument: str, mapped: bool) -> float | Tensor:
    if not isinstance(name, str):
        raise TypeError(f"{argument} must be keyed by module names, not by {name!r}")
    where = f"{argument}[{name!r}]" if mapped else argument
    if isinstance(value, Tensor) and (mapped or value.numel() == 1):
        if value.is_complex() or value.dtype == torch.bool:
            raise TypeError(f"{where} must hold real numbers, not {value.dtype}")
        if not bool((value >= 0).all()):  # false for NaN as well
            raise ValueError(f"{where} has entries that are negative or NaN; give 0 to inf")
        value = value.detach()
        if value.dim() == 0 or not mapped:
            return float(value)
        return value.to(torch.promote_types(value.dtype, torch.float32))
    if isinstance(value, Tensor):
        raise TypeError(
            f"{where} is a tensor of shape {tuple(value.shape)}: a tensor belongs to one "
            "module's gates, so give {'module name': tensor, '': number for all the rest}"
        )
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{where} must be a number from 0 to inf or a mapping from module names, "
            f"not {type(value).__name__}"
        )
    number = float(value)
    if math.isnan(number) or number < 0:
        raise ValueError(f"{where} is {number}; give a number from 0 (hard gates) to inf")
    return number


def _some(names: list[str], most: int = 8) -> str:
    names = [name for name in names if name]
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
