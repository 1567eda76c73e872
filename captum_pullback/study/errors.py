"""Errors for the user to read, and the lines of the user's own code that led to them."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["ScoreError", "UsageError", "blamed", "own_lines", "reason"]

_PACKAGE = Path(__file__).resolve().parents[1]
_MOST_FRAMES, _MOST_LETTERS = 5, 500


class UsageError(Exception):
    """The request cannot be carried out.

    Attributes:
        lines: The user's own code that led to it, ready to print under the message.

    Args:
        message: One line.
        lines: See above.
    """

    def __init__(self, message: str, lines: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.lines = tuple(lines)


class ScoreError(UsageError):
    """A network's outputs for one photograph are not finite; others may be."""


def blamed(error: BaseException, what: str) -> UsageError:
    """Turn an error of the user's network or module into one for the user to read.

    Args:
        error: What was raised.
        what: What failed, and whose it is, as in "mymod:make fails on cat.jpg".
    """
    lines = own_lines(error)
    whose = " (raised in its own code:)" if lines else ""
    return UsageError(f"{what}: {reason(error)}{whose}", lines)


def reason(error: BaseException) -> str:
    """Return an error in one line, with its type if the message alone says too little."""
    text = " ".join(str(error).split())
    if len(text) > _MOST_LETTERS:
        text = f"{text[:_MOST_LETTERS]}..."
    telling = (RuntimeError, TypeError, UsageError, ValueError)
    plain = isinstance(error, telling) and len(text.split()) > 2
    return text if plain else f"{type(error).__name__}: {text}".removesuffix(": ")


def own_lines(error: BaseException) -> tuple[str, ...]:
    """Return the lines of the user's own files that led to an error, or to its cause.

    Frames of this package, of installed packages and of Python's library are left out.
    """
    for each in _chain(error):
        if isinstance(each, SyntaxError) and each.filename and _is_own(each.filename):
            place = f'  File "{_short(each.filename)}", line {each.lineno}'
            return (place, f"    {(each.text or '').strip()}")
        frames = [f for f in traceback.extract_tb(each.__traceback__) if _is_own(f.filename)]
        if frames:
            return tuple(
                line
                for frame in frames[-_MOST_FRAMES:]
                for line in (
                    f'  File "{_short(frame.filename)}", line {frame.lineno}, in {frame.name}',
                    f"    {frame.line or ''}",
                )
            )
    return ()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _is_own(file: str) -> bool:
    path = Path(file).resolve()
    return path.is_file() and not any(path.is_relative_to(folder) for folder in _others())


def _others() -> list[Path]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return [_PACKAGE, *(Path(sysconfig.get_path(name)).resolve() for name in names)]


def _short(file: str) -> str:
    """Return a file's path relative to the working folder, if it is inside it."""
    try:
        shown = os.path.relpath(file)
    except (OSError, ValueError):  # the folder has been removed, or is on another drive
        return file
    return file if shown.startswith(os.pardir) else shown
