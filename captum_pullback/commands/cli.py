"""The command line: runs a command, and reports errors in one line.

Exit codes: 0 if everything was done; 2 if the request cannot be carried out, or not for every
photograph (one that some methods cannot explain counts as done if any other method can); 1 for a
bug in this program; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, ModuleType

from captum_pullback.commands.parser import parser
from captum_pullback.commands.terminal import complain, discard_output, doing
from captum_pullback.study.errors import UsageError, blamed, own_lines, reason

__all__ = ["main"]

#: Set in the environment, it shows the traceback of a bug.
TRACEBACK = "CAPTUM_PULLBACK_TRACEBACK"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The arguments; None for those of the process.

    Returns:
        The exit code.
    """
    try:
        args = parser().parse_args(argv)
        with doing("loading PyTorch"):
            command = _module(f"captum_pullback.{args.module}", is_process=argv is None)
        with _importing_from_here():
            return _run(command, args)
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except BrokenPipeError:  # as by ``| head``; what is still buffered must not raise at exit
        discard_output()
        return 0
    except UsageError as error:
        complain(f"error: {error}", error.lines)
        return 2
    except OSError as error:
        complain(f"error: {_said(error)}")
        return 2
    except MemoryError as error:
        complain(f"error: there is not enough memory ({reason(error)})")
        return 2
    except Exception as error:
        return _fault(error)


def _run(command: ModuleType, args: argparse.Namespace) -> int:
    try:
        return int(command.run(args))
    except SystemExit as error:  # from the user's own module
        models = args.model if isinstance(args.model, list) else [str(args.model)]
        raise blamed(error, f"{', '.join(models)} exits the program") from error


def _module(name: str, *, is_process: bool) -> ModuleType:
    """Import a command, which takes seconds the first time.

    Torch and NumPy turn a Ctrl-C during their import into errors of other kinds. The process has
    nothing to clean up then, so it ends immediately.
    """
    if not is_process or threading.current_thread() is not threading.main_thread():
        return importlib.import_module(name)

    def stop(number: int, frame: FrameType | None) -> None:
        start = b"\n" if os.isatty(2) else b""  # after the line that `doing` shows
        os.write(2, start + b"captum-pullback: interrupted\n")
        os._exit(130)

    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:  # as in a shell's background jobs
        return importlib.import_module(name)
    signal.signal(signal.SIGINT, stop)
    try:
        return importlib.import_module(name)
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _importing_from_here() -> Iterator[None]:
    """Make modules of the working folder importable, as with ``python -m``."""
    try:
        here = os.getcwd()
    except OSError:  # the folder is gone
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _said(error: OSError) -> str:
    """Return an operating system's error, with the file's name first."""
    if error.strerror is None:  # one of our own, whose message is complete
        return str(error) or type(error).__name__
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


def _fault(error: Exception) -> int:
    """Report an exception that should not have been raised; return the exit code."""
    lines = own_lines(error)
    if lines:
        complain(f"error: {reason(error)}", lines)
        return 2
    complain(
        f"internal error: {reason(error)}. This should not happen: please report it, with the "
        f"command and what it prints when {TRACEBACK}=1 is set"
    )
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    return 1
