"""A lens's record on disk: one file for each step, either complete or absent."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from captum_pullback.outputs import replacing, sweep

__all__ = ["LensError", "StepFiles"]

Array = npt.NDArray[Any]

_FORMAT = 1
_STEP = re.compile(r"step_(\d+)\.npz")


class LensError(RuntimeError):
    """A record that does not fit, or lacks what is needed; the message says what to do."""


class StepFiles:
    """A folder with a file of arrays for each step.

    Files get their names only when they are complete and on the disk, so that a process may be
    killed at any time: a file with a step's name can be read. Several processes may write to one
    folder.

    Args:
        folder: The folder; it is created if necessary.
        description: The settings of every step. They are written at the first
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
            there = _description(path)
            differs = [key for key in described if there.get(key) != described[key]]
            if differs:
                raise LensError(
                    f"{self.folder} contains a record of other {', '.join(differs)}: give the same "
                    "inputs and settings, or another folder"
                )
        else:
            with _on_disk(path) as file:
                file.write(json.dumps(described).encode())

    @property
    def steps(self) -> list[int]:
        """The steps in the folder, ascending."""
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
        """Open the arrays of one step; each is read when it is accessed.

        Raises:
            LensError: The file is damaged, or lacks an array.
        """
        path = self._path(step)
        with ExitStack() as stack:
            with _whole(path):
                file = stack.enter_context(path.open("rb"))
                arrays = np.load(file, allow_pickle=False)
                if not isinstance(arrays, np.lib.npyio.NpzFile):
                    raise ValueError("one array, not an archive")
            yield _Arrays(path, stack.enter_context(arrays))

    def _path(self, step: int) -> Path:
        return self.folder / f"step_{step:09d}.npz"


class _Arrays(Mapping[str, Array]):
    """A file's arrays; a damaged one raises an error that names the file."""

    def __init__(self, path: Path, arrays: Mapping[str, Array]) -> None:
        self._path, self._arrays = path, arrays

    def __getitem__(self, name: str) -> Array:
        with _whole(self._path):
            return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Turn any error inside the block into one that names the file."""
    try:
        yield
    except (KeyError, OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise LensError(
            f"{path} is damaged ({type(error).__name__}): remove it, and record this step again"
        ) from error


def _description(path: Path) -> Mapping[str, Any]:
    """Return what a folder's steps were recorded with."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise LensError(f"{path} is damaged: remove {path.parent}, and record again")
    return found


@contextmanager
def _on_disk(path: Path) -> Iterator[IO[bytes]]:
    with replacing(path) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
