"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

_fcntl: Any
try:
    _fcntl = import_module("fcntl")
except ImportError:  # Windows, which does not delete a file that is open
    _fcntl = None

FIGURES = (".png", ".pdf", ".svg")
"""What a figure's name may end in."""


class OutputError(OSError):
    """A file that cannot be written; the message is one line."""


def writable(
    path: str | os.PathLike[str], suffixes: Sequence[str], inputs: Sequence[str] = ()
) -> Path:
    """Makes sure, before long work, that a file can be written there; leaves nothing behind.

    Args:
        path: Of the file.
        suffixes: What its name may end in, in lower case.
        inputs: Files that are read, of which it must be none.

    Returns:
        The path, with links followed.

    Raises:
        OutputError: another suffix, no such folder, a folder, a device, one of the inputs, or no
            permission.
    """
    shown, target = os.fspath(path), Path(path).resolve()
    if str(target) in map(os.path.realpath, inputs):
        raise OutputError(f"{shown}: is one of the photographs; choose another name")
    if target.suffix.lower() not in suffixes:
        raise OutputError(f"{shown}: a name that ends in {' or '.join(suffixes)} is wanted")
    if not target.parent.is_dir():
        raise OutputError(f"{shown}: there is no folder {target.parent}; make it first")
    if target.exists() and not target.is_file():
        raise OutputError(f"{shown}: is not a regular file; choose another name")
    if target.exists() and not os.access(target, os.W_OK):
        raise OutputError(f"{shown}: may not be written; change its permissions")
    probe = _beside(target)
    try:
        probe.open("xb").close()
    except OSError as error:
        raise OutputError(f"{shown}: cannot be written ({error.strerror})") from error
    finally:
        probe.unlink(missing_ok=True)
    return target


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which takes ``path``'s place once the block has ended without error.

    Raises:
        OutputError: it could not be written, for want of space for instance.
    """
    temporary = _beside(path)
    try:
        with ExitStack() as claim:
            with _claimed(temporary, claim) as file:
                yield file
            if path.exists():
                shutil.copymode(path, temporary)
            os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Removes what killed processes have left half written in a folder.

    What another process, or another thread, is writing there now stays: it holds a lock on its
    file, which the system releases when the process ends, however it ends.
    """
    for path in folder.glob(".*.part"):
        with suppress(OSError):  # somebody's, or gone already
            if _fcntl is None:
                path.unlink()
                continue
            with path.open("rb") as file:
                _fcntl.flock(file, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
                path.unlink()


def _claimed(path: Path, claim: ExitStack) -> IO[bytes]:
    """A new file, locked until the claim ends: also once it is closed, and not yet renamed."""
    while True:
        file = path.open("xb")
        if _fcntl is None:
            return file
        held = os.dup(file.fileno())
        claim.callback(os.close, held)
        with suppress(OSError):  # file systems without locks: nothing is swept there
            _fcntl.flock(held, _fcntl.LOCK_EX)
        # Between opening and locking, a `sweep` may have taken it for one that nobody writes.
        if os.fstat(held).st_nlink:
            return file
        file.close()


def _beside(path: Path) -> Path:
    return path.with_name(f".{uuid.uuid4().hex}.part")
