"""What a softening did: the coverage of an explanation, for a user to print."""

from __future__ import annotations

import threading
from collections import Counter
from typing import NamedTuple

from torch import Tensor

__all__ = ["Met", "SofteningRecord"]

#: Name that stands for all modules inside a compiled graph, where names are gone.
COMPILED = "(compiled)"


class Met(NamedTuple):
    """One kind of operation, as it was met in one module.

    Attributes:
        module: The name of the module that ran it; "" is the model itself.
        operation: PyTorch's name of it.
        calls: How often it ran with a gradient to pass on; for a compiled graph, 1 in all.
        temperature: The temperature that it was given; None for what is no gate.
    """

    module: str
    operation: str
    calls: int
    temperature: str | None


class SofteningRecord:
    """What was softened and what was left hard inside one `soften` block, in order of meeting.

    Printed, it is a table. Recording from several threads at once is safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: Counter[tuple[str, str, str | None]] = Counter()
        self._traced = _Traced()
        #: Whether a gate ran in the block without a gradient to pass on, under `torch.no_grad`.
        self.gates_without_gradient = False
        #: Whether one of them ran in a reentrant checkpoint, whose backward pass was not seen yet.
        self.will_run_again = False

    @property
    def softened(self) -> list[Met]:
        """The gates that had a soft backward pass."""
        return [met for met in self._all() if met.temperature not in (None, "0")]

    @property
    def left_hard(self) -> list[Met]:
        """Gates of temperature 0, and nonlinearities that are no gates."""
        return [met for met in self._all() if met.temperature in (None, "0")]

    @property
    def gates(self) -> list[Met]:
        """The gates that were met, those of temperature 0 included."""
        return [met for met in self._all() if met.temperature is not None]

    def count(self, module: str, operation: str, temperature: float | Tensor | None) -> None:
        """Count one call; temperature is None for what is no gate."""
        with self._lock:
            self._calls[module, operation, _shown(temperature)] += 1

    def count_traced(self, operation: str, temperature: float | None) -> None:
        """Note an operation while Dynamo traces it: setting an attribute is what it replays."""
        setattr(self._traced, operation, temperature)

    def _all(self) -> list[Met]:
        with self._lock:
            met = [Met(*key[:2], calls, key[2]) for key, calls in self._calls.items()]
        traced = vars(self._traced).items()
        return met + [Met(COMPILED, name, 1, _shown(given)) for name, given in traced]

    def __str__(self) -> str:
        header = ("module", "operation", "calls", "temperature")
        rows = [header]
        for met in self.softened:
            rows.append(
                (met.module or "(model)", met.operation, str(met.calls), str(met.temperature))
            )
        for met in self.left_hard:
            why = "left hard" if met.temperature is None else "0 (hard)"
            rows.append((met.module or "(model)", met.operation, str(met.calls), why))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        soft = sum(met.calls for met in self.softened)
        hard = sum(met.calls for met in self.left_hard)
        return "\n".join(
            [*lines, f"{soft} gate calls softened, {hard} nonlinearity calls left hard"]
        )

    __repr__ = __str__


class _Traced:
    """Holds one attribute for each operation that a compiled graph contains."""


def _shown(temperature: float | Tensor | None) -> str | None:
    if isinstance(temperature, Tensor):
        return f"tensor{list(temperature.shape)}"
    return None if temperature is None else f"{temperature:g}"
