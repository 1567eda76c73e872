"""The record of a softening: the coverage of an explanation, for a user to print."""

from __future__ import annotations

import threading
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from captum_pullback.engine._torch import has_batched_gradient, is_transformed, is_watched
from captum_pullback.engine.spread import UNITS, Spread

__all__ = ["Entry", "Met", "SofteningRecord"]

#: Name that stands for all modules inside a compiled graph, where names are gone.
COMPILED = "(compiled)"
#: Name that stands for where no function mode looks: threads, scripted code, custom functions.
UNSEEN = "(unseen)"


#: By unit, the temperature of gates whose inputs had nothing of which it would be a multiple.
NOTHING = {unit: f"0 (no {unit})" for unit in UNITS}


Done: TypeAlias = Literal["softened", "held", "derivative kept"]


class Met(NamedTuple):
    """One kind of operation that ran in one module.

    Attributes:
        module: The name of the module that ran it; "" is the model itself, and "(unseen)" what
            ran where it could not be met, such as in a thread of the network's own.
        operation: PyTorch's name for it.
        calls: How often it ran on the path to what was attributed to; for a compiled graph, 1 in
            total.
        temperature: Its temperature; None where temperatures have no effect.
        done: Whether it was softened, held as it is, or kept its derivative.
    """

    module: str
    operation: str
    calls: int
    temperature: str | None
    done: Done = "softened"


class Entry:
    """The calls of one operation in one module.

    Attributes:
        met: How many there were.
        calls: Of how many the backward pass has run.
        flat: Of how many an example had no spread, by a temperature in units of it.
        low: The least temperature that one in units of spread came to; None if there is none.
        high: The greatest.
    """

    __slots__ = ("_lock", "calls", "done", "flat", "high", "low", "met", "record", "temperature")

    def __init__(self, record: SofteningRecord, temperature: Any, done: Done) -> None:
        self.record, self._lock = record, record.lock
        self.temperature, self.done = temperature, done
        self.met = self.calls = self.flat = 0
        self.low: float | None = None
        self.high: float | None = None

    def note(self, call: Any, force: Any, grad: Tensor) -> None:
        """The backward pass of a call has run, for a gradient, at a temperature in force."""
        record = self.record
        if record.own_gradients:
            return
        # One that is not zero is enough: another head's gates get zeros.
        counts = self.done != "derivative kept" and not record.ran and carries_something(grad)
        with self._lock:
            record.ran |= counts
            first, call.counted = not call.counted, True
            self.calls += first
            if isinstance(self.temperature, Spread) and not record.is_lean:
                self._note_spread(force, first=first)

    def _note_spread(self, force: Any, *, first: bool) -> None:
        """Note what a temperature in units of spread came to, for each example."""
        if isinstance(force, Spread) or (isinstance(force, Tensor) and is_transformed()):
            return  # which the rule has not asked for, or which has no number yet
        found = force.flatten().tolist() if isinstance(force, Tensor) else [force]
        self.flat += first and 0 in found
        spreads = [each for each in (self.low, self.high, *found) if each]
        if spreads:
            self.low, self.high = min(spreads), max(spreads)

    def shown(self) -> str | None:
        """The temperature, for people."""
        text = _shown(self.temperature)
        if self.low is None or self.high is None:
            return NOTHING[self.temperature.unit] if self.flat else text
        span = f"{self.low:.3g}" if self.low == self.high else f"{self.low:.3g} to {self.high:.3g}"
        if self.flat:
            calls = f"{self.calls} call" + ("" if self.calls == 1 else "s")
            span += f"; no {self.temperature.unit} and so hard in {self.flat} of {calls}"
        return f"{text} ({span})"


def carries_something(grad: Tensor) -> bool:
    """Whether a gradient is other than zero, as far as one can see."""
    plain = type(grad) is Tensor and not grad.is_meta and grad.layout == torch.strided
    return not plain or is_watched() or has_batched_gradient(grad) or bool(grad.any())


class SofteningRecord:
    """What was softened, held or left inside one `soften` block, in the order in which it ran.

    Printed, it is a table. Recording from several threads at once is safe.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._entries: dict[tuple[str, str, Any], Entry] = {}
        self._traced = _Traced()
        self._traced_refusal = _Traced()
        self._unseen: dict[str, set[int]] = {}
        #: The softened calls, each with its module and kind, where their temperatures are to be
        #: changed afterwards; None where they are not, or cannot be.
        self.calls: list[tuple[Any, str, Any]] | None = None
        #: Whether only what the attribution itself needs is recorded.
        self.is_lean = False
        #: Whether a gate has passed on something in the gradient that is taken, or was last.
        self.ran = False
        #: How deep in a gradient that the network takes in its own forward pass this is.
        self.own_gradients = 0
        #: Whether a gradient was taken: from then on, what counts is what lay on its way.
        self.has_gradient = False
        #: Whether a gate ran in the block without a gradient to pass on, under `torch.no_grad`.
        self.gates_without_gradient = False
        #: Whether one of them ran in a reentrant checkpoint, whose backward pass was not seen yet.
        self.will_run_again = False

    def entry(self, module: str, operation: str, temperature: Any, done: Done) -> Entry:
        """The entry of an operation in a module, made where there is none yet."""
        if isinstance(temperature, Tensor):
            temperature = _shown(temperature)
        key = (module, operation, temperature if done == "softened" else done)
        entry = self._entries.get(key)
        if entry is None:
            with self.lock:
                entry = self._entries.setdefault(key, Entry(self, temperature, done))
        with self.lock:
            entry.met += 1
        return entry

    def note_unseen(self, operation: str, number: int) -> None:
        """Note an operation of autograd's graph that was not met, once for each number."""
        with self.lock:
            self._unseen.setdefault(operation, set()).add(number)

    def count_traced(self, operation: str, temperature: Any) -> None:
        """Note an operation while Dynamo traces it: setting an attribute is what it replays."""
        setattr(self._traced, operation, temperature)

    def refuse_traced(self, why: str) -> None:
        """Note, while Dynamo traces, that a gradient of this graph would be wrong."""
        setattr(self._traced_refusal, "why", why)  # noqa: B010

    @property
    def refused(self) -> str:
        """Why a gradient of a compiled graph is refused; "" if it is not."""
        return getattr(self._traced_refusal, "why", "")

    @property
    def was_traced(self) -> bool:
        """Whether gates ran inside a compiled graph."""
        return any(given is not None for given in vars(self._traced).values())

    @property
    def softened(self) -> list[Met]:
        """The gates that had a soft backward pass, on the path to what was attributed to."""
        return [met for met in self._all() if met.done == "softened" and not _is_hard(met)]

    @property
    def held(self) -> list[Met]:
        """The gates that were held as they are, on the path to what was attributed to."""
        return [met for met in self._all() if met.done == "held"]

    @property
    def left_hard(self) -> list[Met]:
        """Gates of temperature 0, and nonlinearities whose derivative was kept."""
        return [met for met in self._all() if met.done == "derivative kept" or _is_hard(met)]

    @property
    def off_the_way(self) -> list[Met]:
        """Gates that no gradient passed through."""
        return [
            Met(module, operation, entry.met, entry.shown(), entry.done)
            for (module, operation, _), entry in list(self._entries.items())
            if not self._count(entry) and entry.done != "derivative kept"
        ]

    @property
    def kept(self) -> set[str]:
        """Names of nonlinearities that ran without a rule, on the path or not."""
        entries = list(self._entries.items())
        return {key[1] for key, entry in entries if entry.done == "derivative kept"}

    @property
    def gates(self) -> list[Met]:
        """All gates that ran, on the path or not, including those of temperature 0."""
        return [met for met in (*self._all(), *self.off_the_way) if met.done != "derivative kept"]

    def _all(self) -> list[Met]:
        with self.lock:
            found = [
                Met(module, operation, self._count(entry), entry.shown(), entry.done)
                for (module, operation, _), entry in self._entries.items()
                if self._count(entry)
            ]
            found += [
                Met(UNSEEN, operation, len(numbers), None, "derivative kept")
                for operation, numbers in self._unseen.items()
            ]
        for name, given in vars(self._traced).items():
            done: Done = "derivative kept" if given is None else "softened"
            if given == "held":
                found.append(Met(COMPILED, name, 1, None, "held"))
            else:
                found.append(Met(COMPILED, name, 1, _shown(given), done))
        return found

    def _count(self, entry: Entry) -> int:
        return entry.calls if self.has_gradient else entry.met

    def __str__(self) -> str:
        rows = [("module", "operation", "calls", "temperature")]
        for met in self.softened:
            rows.append(
                (met.module or "(model)", met.operation, str(met.calls), str(met.temperature))
            )
        rows += [
            (met.module or "(model)", met.operation, str(met.calls), "held") for met in self.held
        ]
        for met in self.left_hard:
            why = "0 (hard)" if met.temperature == "0" else met.temperature or "derivative kept"
            rows.append((met.module or "(model)", met.operation, str(met.calls), why))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        totals = [
            f"{_calls(self.softened, 'gate call')} softened",
            f"{_calls(self.held, 'gate call')} held",
            f"{_calls(self.left_hard, 'nonlinearity call')} left hard",
        ]
        if off := self.off_the_way:
            totals.append(f"{_calls(off, 'gate call')} off the way")
        return "\n".join([*lines, ", ".join(totals)])

    __repr__ = __str__


def _is_hard(met: Met) -> bool:
    return met.temperature in ("0", *NOTHING.values())


def _calls(met: list[Met], what: str) -> str:
    count = sum(each.calls for each in met)
    return f"{count} {what}" + ("" if count == 1 else "s")


class _Traced:
    """Holds what Dynamo replays: an attribute for each operation that a compiled graph contains."""


def _shown(temperature: Any) -> str | None:
    if isinstance(temperature, Tensor):
        return f"tensor{list(temperature.shape)}"
    if isinstance(temperature, Spread):
        return f"{temperature.scale:g} {temperature.unit}"
    if temperature is None or isinstance(temperature, str):
        return temperature
    return f"{temperature:g}"
