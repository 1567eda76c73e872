"""What a page asks for and what it shows: one `Desk` for each visitor.

Requests may overtake each other. So the page numbers every action, each request contains only what
it changes, and the newest value of each setting counts. Whichever request arrives last then finds
the same question, in whatever order they came.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from captum_pullback.app.climbing import Ascended
from captum_pullback.app.question import METHODS, RULES, Loaded, Photo, Question, What
from captum_pullback.app.work import Explanation, Seen
from captum_pullback.engine.softness import DEFAULT_TEMPERATURE
from captum_pullback.engine.spread import UNITS, Spread
from captum_pullback.figures.panels import Method
from captum_pullback.study.ascents import Climb

__all__ = ["RANGES", "Desk", "Wanted", "read", "rule_choices"]

#: For each numeric setting: its minimum, its maximum, and whether it is a whole number.
RANGES: dict[str, tuple[float, float, bool]] = {
    "temperature": (0, 5, False),
    "pool": (0, 5, False),
    "channel": (0, 2**31, True),
    "steps": (1, 20, True),
    "step_size": (0.01, 0.5, False),
    "radius": (0.05, 2, False),
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "unit": ("z", *UNITS),
    "what": ("class", "neuron", "layer"),
    "method": METHODS,
    "show": ("heat_map", "blended_heat_map", "colors"),
}


@dataclass(frozen=True)
class Wanted:
    """The settings of the page's controls.

    Attributes:
        network: The name of the network.
        photo: The photograph; None until one is chosen.
        targets: The classes; None for the most probable one.
        follow: Whether max pooling has the same temperature; otherwise it has ``pool``.
        unit: The unit of ``temperature`` and ``pool``: the gates' inputs z, their spread, or the
            gates' mean output.
        show: How maps are drawn.

    The other attributes are those of `Question` and `Climb`.
    """

    network: str
    photo: Photo | None = None
    what: What = "class"
    targets: tuple[int, ...] | None = None
    method: str = METHODS[0]
    temperature: float = DEFAULT_TEMPERATURE.scale
    follow: bool = True
    pool: float = DEFAULT_TEMPERATURE.scale
    layer: str = ""
    channel: int = 0
    everywhere: bool = False
    unit: str = DEFAULT_TEMPERATURE.unit
    rules: str = RULES[0]
    show: Method = "heat_map"
    steps: int = 5
    step_size: float = 0.1
    radius: float = 0.5
    bounded: bool = True
    compare: bool = False

    def question(self, seen: Seen) -> Question:
        """Return the question about a photograph that the network has seen."""
        targets = (int(seen.logits.argmax()),) if self.targets is None else self.targets
        return Question(
            seen.network, seen.photo, self.what, targets, self.method, self._heat(self.temperature),
            None if self.follow else self._heat(self.pool), self.layer, self.channel,
            self.everywhere, self.rules,
        )  # fmt: skip

    def _heat(self, number: float) -> float | Spread:
        """Return a temperature in its unit; 0 is hard in any unit."""
        if self.unit == "z" or not number:
            return number
        return Spread(number, self.unit)  # type: ignore[arg-type]

    def climb(self) -> Climb:
        """Return the settings of an ascent."""
        return Climb(self.steps, self.step_size, self.radius, self.bounded, self.compare)


class Desk:
    """The newest value of each setting, and what is on the page.

    Args:
        start: The settings at the start.
    """

    def __init__(self, start: Wanted) -> None:
        self._lock = threading.Lock()
        self._start = self._wanted = self._settled = start
        self._turns: dict[str, int] = {}
        self._turn = self._shown = 0
        self._stopped = -1
        self.seen: Seen | None = None
        self.answer: Explanation | None = None
        self.pinned: Explanation | None = None
        self.ascent: Ascended | None = None
        self.ascent_card = ""
        #: The network whose classes and layers the controls list.
        self.listed = start.network

    def __deepcopy__(self, memo: object) -> Desk:
        """Return an empty desk, for the next visitor."""
        return Desk(self._start)

    @property
    def fresh(self) -> bool:
        """Whether nothing has been asked here yet."""
        return self._turn == 0

    def want(self, turn: int, changes: Mapping[str, Any]) -> None:
        """Take over settings, except those that a later turn has changed."""
        with self._lock:
            newest = {n: v for n, v in changes.items() if turn >= self._turns.get(n, 0)}
            self._turns.update(dict.fromkeys(newest, turn))
            self._wanted = replace(self._wanted, **newest)
            self._turn = max(self._turn, turn)

    def wanted(self) -> tuple[int, Wanted]:
        """Return the last turn, and all settings as of then."""
        with self._lock:
            return self._turn, self._wanted

    def stop(self, turn: int) -> int:
        """Stop all that was asked up to this turn, even what has not arrived yet.

        Returns:
            The last turn that has arrived and is stopped.
        """
        with self._lock:
            self._stopped = max(self._stopped, turn)
            return min(self._turn, turn)

    def stopped(self, turn: int) -> bool:
        """Return whether what was asked in this turn was stopped."""
        with self._lock:
            return turn <= self._stopped

    def settle(self, wanted: Wanted, seen: Seen) -> None:
        """Record that the network has seen this photograph, so that `back` can return to it."""
        with self._lock:
            self.seen = seen
            self._settled = wanted

    def back(self, wanted: Wanted) -> bool:
        """Return to the last photograph that worked, with its classes.

        Nothing changes if another one has been chosen meanwhile. The result says whether there was
        a photograph to return to.
        """
        with self._lock:
            then = self._settled
            if self._wanted.photo == wanted.photo:
                targets = then.targets if then.network == self._wanted.network else None
                self._wanted = replace(self._wanted, photo=then.photo, targets=targets)
            return then.photo not in (None, wanted.photo)

    def show(self, turn: int, answer: Explanation) -> bool:
        """Record what is on the page, unless something newer is; return False if it was stopped."""
        with self._lock:
            if turn <= self._stopped:
                return False
            if turn >= self._shown:
                self._shown, self.answer = turn, answer
            return True

    def rate(self, turn: int, before: Explanation, after: Explanation) -> bool:
        """Replace an answer by the same with scores; return False if it was stopped."""
        with self._lock:
            if turn <= self._stopped:
                return False
            self.answer = after if self.answer is before else self.answer
            self.pinned = after if self.pinned is before else self.pinned
            return True

    def has(self, answer: Explanation) -> bool:
        """Return whether the answer is on the page."""
        return answer is self.answer or answer is self.pinned

    def pin(self) -> None:
        """Keep the answer beside those that follow, or release it."""
        with self._lock:
            self.pinned = self.answer if self.pinned is None else None


def whole(turn: Any) -> int:
    """Return the number of a turn; 0 for anything that is not a number."""
    return int(turn) if isinstance(turn, (int, float)) and math.isfinite(turn) else 0


def read(name: str, value: Any, loaded: Loaded) -> dict[str, Any]:
    """Return a control's value as a setting within its range; nothing if it is invalid.

    Pages cannot be trusted: the value may be anything.
    """
    if name in RANGES:
        low, high, whole = RANGES[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
            return {}
        number = min(max(value, low), high)
        return {name: int(number) if whole else float(number)}
    if name in _CHOICES:
        return {name: value} if value in _CHOICES[name] else {}
    if name == "rules":
        return {name: value} if value in rule_choices(loaded) else {}
    if name == "layer":
        return {name: value} if isinstance(value, str) and value in loaded.layers else {}
    if name == "targets":
        given = value if isinstance(value, list) else []
        known = [t for t in given if type(t) is int and 0 <= t < loaded.outputs]
        return {name: tuple(dict.fromkeys(known))}
    return {name: bool(value)}


def rule_choices(loaded: Loaded) -> list[str]:
    """Return the composites, and the rules that the app was started with."""
    return list(dict.fromkeys([*RULES, loaded.rules]))
