"""What is said on the terminal, and how: in whole lines, whatever names have in them."""

from __future__ import annotations

import sys
from typing import TextIO

PROGRAM = "captum-pullback"


class UsageError(Exception):
    """What was asked cannot be done; the message is one line for the user."""


def printable(text: str) -> str:
    """A file's name fit for one line of a terminal or a figure, whatever is in it."""
    return "".join(c if c.isprintable() else "?" for c in text)


def say(text: str) -> None:
    """Prints to stdout."""
    _print(text, sys.stdout)


def complain(text: str) -> None:
    """Prints to stderr, in one line."""
    _print(f"{PROGRAM}: {printable(' '.join(text.split()))}", sys.stderr)


def _print(text: str, file: TextIO) -> None:
    encoding = file.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), file=file, flush=True)
