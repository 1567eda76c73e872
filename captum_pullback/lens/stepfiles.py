"""What a lens has recorded, on disk: one file for each step, there whole or not at all."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from captum_pullback.outputs import replacing, sweep

__all__ = ["LensError", "StepFiles"]

Array = npt.NDArray[Any]

_FORMAT = 1
_STEP = re.compile(r"step_(\d+)\.npz")


class LensError(RuntimeError):
    """A record that does not fit, or lacks what was asked of it; the message says what to do."""


class StepFiles:
    """A folder with a file of arrays for each step.

    Files take their names only when they are whole and on the disk, so that a process may be
    killed at any time: what has a step's name can be read. Several processes may write to one
    folder.

    Args:
        folder: Made if it is not there.
        description: What every step must have been recorded with. It is written with the first
            use of the folder, and compared at every later one.

    Raises:
        LensError: The folder holds the record of something else.
    """

    def __init__(self, folder: str | os.PathLike[str], description: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        described = json.loads(json.dumps({"format": _FORMAT, **description}))
        path = self.folder / "lens.json"
        if path.exists():
            there = json.loads(path.read_text(encoding="utf-8"))
            differs = [key for key in described if there.get(key) != described[key]]
            if differs:
                raise LensError(
                    f"{self.folder} holds a record of other {', '.join(differs)}: give the same "
                    "inputs and settings, or another folder"
                )
        else:
            with _on_disk(path) as file:
                file.write(json.dumps(described).encode())

    @property
    def steps(self) -> list[int]:
        """The steps that are there, ascending."""
        found = (_STEP.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def __contains__(self, step: int) -> bool:
        return self._path(step).exists()

    def write(self, step: int, arrays: Mapping[str, Array]) -> None:
        """Keep the arrays of one step."""
        sweep(self.folder)
        with _on_disk(self._path(step)) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    @contextmanager
    def read(self, step: int) -> Iterator[Mapping[str, Array]]:
        """The arrays of one step, each read when it is asked for."""
        with np.load(self._path(step), allow_pickle=False) as arrays:
            yield arrays

    def _path(self, step: int) -> Path:
        return self.folder / f"step_{step:09d}.npz"


@contextmanager
def _on_disk(path: Path) -> Iterator[IO[bytes]]:
    with replacing(path) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
