"""The command line in a process of its own, and what it leaves in the working folder."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


class Terminal(io.StringIO):
    """What a progress bar takes for a terminal."""

    def isatty(self) -> bool:
        return True


def environment(*folders: Path, **more: str) -> dict[str, str]:
    """That of a process which finds the package, the tests' modules, and these folders' first."""
    path = os.pathsep.join(map(str, (*folders, ROOT, ROOT / "tests")))
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **more}


def command(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs it in the current folder; ``options`` are those of ``subprocess.run``."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment()}
    return subprocess.run(
        [sys.executable, "-m", "captum_pullback", *arguments],
        text=True,
        check=False,
        **{**pipes, **options},  # type: ignore[call-overload]
    )


def new_files(folder: Path) -> set[str]:
    """The names of what is in the fixture ``folder``, beside what it began with."""
    return {path.name for path in folder.iterdir()} - {"noise.png", "other.png", "broken.jpg"}
