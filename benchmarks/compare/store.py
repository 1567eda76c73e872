"""What was measured, on disk: one line for each finished unit, there whole or not at all.

Each process appends to a file of its own, so that none waits for another. A process may be killed
at any time: of its last line, if that is torn, nothing is read, and the unit is done again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.compare.scoring import Score
from captum_pullback.outputs import replacing

#: A network's name and a photograph's (or a number, for a batch whose cost was measured).
Unit = tuple[str, str]


class StoreError(RuntimeError):
    """A folder that cannot be used for this run; the message says what to do."""


class Store:
    """A run's folder.

    Args:
        folder: Made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other runs out. The system opens the lock when the process ends, however it ends.

        Raises:
            StoreError: Another run is at work here.
        """
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StoreError(f"another run is at work in {self.folder}") from error
            yield

    def describe(self, name: str, description: Mapping[str, Any]) -> None:
        """Writes what the run is, or makes sure that it is what it was.

        Raises:
            StoreError: The folder holds another run.
        """
        described = json.loads(json.dumps(description))
        there = self.description(name)
        if there is None:
            with replacing(self.folder / f"{name}.json") as file:
                file.write(json.dumps(described, indent=1).encode())
                file.flush()
                os.fsync(file.fileno())
            return
        differs = [k for k in {**there, **described} if there.get(k) != described.get(k)]
        if differs:
            raise StoreError(
                f"{self.folder} holds a run with other {', '.join(sorted(differs))}: give the "
                "same settings to go on with it, or another folder (--work)"
            )

    def description(self, name: str) -> dict[str, Any] | None:
        """What `describe` has written, if it has."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            return None
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    @contextmanager
    def writer(self, rank: int) -> Iterator[Callable[[Unit, list[Score]], None]]:
        """What adds a unit that a process has finished: it is on the disk when this returns.

        What was torn before is cut off first.
        """
        path = self.folder / f"scores_{rank}.jsonl"
        with path.open("ab") as file:
            file.truncate(sum(map(len, _lines(path))))

            def write(unit: Unit, scores: list[Score]) -> None:
                file.write(json.dumps([*unit, scores]).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())

            yield write

    def done(self) -> dict[Unit, list[Score]]:
        """The scores of each finished unit.

        Raises:
            StoreError: A unit was counted twice, or a line is damaged.
        """
        found: dict[Unit, list[Score]] = {}
        for path in sorted(self.folder.glob("scores_*.jsonl")):
            place = 0
            for line in _lines(path):
                try:
                    network, name, scores = json.loads(line)
                except ValueError as error:
                    raise StoreError(f"{path} is damaged at byte {place}: {error}") from error
                if (network, name) in found:
                    raise StoreError(f"{network}, {name} is in {self.folder} twice")
                found[network, name] = [Score(*score) for score in scores]
                place += len(line)
        return found


def _lines(path: Path) -> list[bytes]:
    """The whole lines of a file, without the last if that is torn."""
    with path.open("rb") as file:
        return [line for line in file if line.endswith(b"\n")]
