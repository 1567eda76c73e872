"""Files that are written completely or not at all."""

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
"""The suffixes of figures."""


class OutputError(OSError):
    """A file that cannot be written; the message is one line."""


def writable(
    path: str | os.PathLike[str], suffixes: Sequence[str], inputs: Sequence[str] = ()
) -> Path:
    """Check, before long work, that a file can be written there; leave nothing behind.

    Args:
        path: The file.
        suffixes: The suffixes that its name may have, in lower case.
        inputs: Files that are read, and so must not be written.

    Returns:
        The path, with links followed.

    Raises:
        OutputError: Another suffix, no such folder, a folder, a device, one of the inputs, or no
            permission.
    """
    shown = os.fspath(path)
    try:
        target = Path(path).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a link to itself, or an impossible name
        raise OutputError(f"{shown}: is not a valid file name ({error}); choose another") from None
    if str(target) in map(os.path.realpath, inputs):
        raise OutputError(f"{shown}: is one of the photographs; choose another name")
    if target.suffix.lower() not in suffixes:
        raise OutputError(f"{shown}: the name must end in {' or '.join(suffixes)}")
    if not target.parent.is_dir():
        raise OutputError(f"{shown}: there is no folder {target.parent}; create it first")
    if target.exists() and not target.is_file():
        raise OutputError(f"{shown}: is not a regular file; choose another name")
    if target.exists() and not os.access(target, os.W_OK):
        raise OutputError(f"{shown}: is read-only; change its permissions")
    probe = _beside(target)
    try:
        probe.open("xb").close()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"{shown}: nothing can be written in {target.parent} ({error.strerror}); choose "
            "another folder"
        ) from None
    return target


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that replaces ``path`` once the block has ended without error.

    Raises:
        OutputError: It could not be written, for lack of space for instance.
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
        with suppress(OSError):  # it may never have existed, in a read-only folder
            temporary.unlink()


def sweep(folder: Path) -> None:
    """Remove half-written files that killed processes have left in a folder.

    Files that another process or thread is writing now are kept: it holds a lock on its
    file, which the system releases when the process ends, however it ends.
    """
    for path in folder.glob(".*.part"):
        with suppress(OSError):  # locked by somebody, or already gone
            if _fcntl is None:
                path.unlink()
                continue
            with path.open("rb") as file:
                _fcntl.flock(file, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
                path.unlink()


def _claimed(path: Path, claim: ExitStack) -> IO[bytes]:
    """Open a new file, locked until the claim ends: even if it is closed but not yet renamed."""
    while True:
        file = path.open("xb")
        if _fcntl is None:
            return file
        held = os.dup(file.fileno())
        claim.callback(os.close, held)
        with suppress(OSError):  # a file system without locks, where nothing is swept
            _fcntl.flock(held, _fcntl.LOCK_EX)
        # Between opening and locking, a `sweep` may have mistaken it for an abandoned file.
        if os.fstat(held).st_nlink:
            return file
        file.close()


def _beside(path: Path) -> Path:
    return path.with_name(f".{uuid.uuid4().hex}.part")
