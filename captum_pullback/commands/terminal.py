"""Output on the terminal: whole lines, whatever characters names contain."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from captum_pullback.study.errors import UsageError
from captum_pullback.study.text import printable

PROGRAM = "captum-pullback"


def say(text: str) -> None:
    """Print to stdout."""
    try:
        _print(text, sys.stdout)
    except BrokenPipeError:
        raise
    except OSError as error:  # a full disk, for example
        discard_output()
        raise UsageError(f"standard output cannot be written ({error.strerror})") from error


def complain(text: str, lines: Sequence[str] = (), *, program: str = PROGRAM) -> None:
    """Print one line to stderr, and below it the lines of the user's own code that failed."""
    _print(f"{program}: {printable(' '.join(text.split()))}", sys.stderr)
    for line in lines:
        _print(printable(line), sys.stderr)


def complain_of_names(network: str, names: int, outputs: int) -> None:
    """Warn of a network whose classes have names, but not one for each output."""
    if names not in (0, outputs):
        complain(f"warning: {network} has {names} class names for {outputs} outputs")


@contextmanager
def doing(text: str) -> Iterator[None]:
    """Show what is being done while it is done, on a terminal only."""
    file = sys.stderr
    shown = f"{PROGRAM}: {printable(text)} ..." if file is not None and file.isatty() else ""
    try:
        if shown:
            print(shown, end="", file=file, flush=True)
        yield
    finally:
        if shown:
            print(f"\r{' ' * len(shown)}\r", end="", file=file, flush=True)


def discard_output() -> None:
    """Discard what is still buffered for stdout, so that it raises nothing at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print(text: str, file: TextIO | None) -> None:
    if file is None:  # it was closed before the start
        return
    encoding = file.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), file=file, flush=True)
