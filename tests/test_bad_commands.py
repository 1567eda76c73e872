"""Some 300 command lines that cannot be done: each ends in one line and a documented exit code.

Under the line there may be lines of the user's own module, indented. There is no traceback, nothing
on stdout, and no new file.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_inputs import TINY, make_modules, make_photographs, make_records, make_runs, make_weights
from bad_lines import commands
from command_line import environment

from captum_pullback.commands import cli

CODES = (1, 2, 130)  # other than 0, as --help has them


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder of all the commands, with everything that they name."""
    here, before = os.getcwd(), list(sys.path)
    folder = tmp_path_factory.mktemp("commands")
    os.chdir(folder)
    try:
        make_modules()
        sys.path.insert(0, str(folder))
        sys.modules.pop("tiny", None)
        tiny = importlib.import_module("tiny")
        make_photographs()
        make_weights(tiny)
        make_runs(tiny)
        make_records(tiny)
        yield folder
    finally:
        sys.path[:] = before
        sys.modules.pop("tiny", None)
        os.chdir(here)


def arguments(line: str) -> list[str]:
    words = shlex.split(line)
    if words[:1] in (["explain"], ["ascend"]) and "--model" not in words:
        words += ["--model", "tiny:network"]
    if words[:1] == ["app"]:
        words += ["--no-browser"]
    return words


def test_there_are_some_300() -> None:
    lines = [line for line, _ in commands()]
    assert len(lines) == len(set(lines))
    assert len(lines) > 300


@pytest.mark.parametrize(("line", "says"), commands(), ids=[line for line, _ in commands()])
def test_one_line_and_a_code(
    folder: Path, capsys: pytest.CaptureFixture[str], line: str, says: str
) -> None:
    words = arguments(line)
    if words[:1] == ["app"] and importlib.util.find_spec("gradio") is None:
        says = f"{says}|needs Gradio"
    before = sorted(os.listdir(folder))
    path = list(sys.path)
    code = cli.main(words)
    out, err = capsys.readouterr()
    assert code in CODES
    assert code == 2, err
    assert_said(err, says)
    assert out == ""
    assert sorted(os.listdir(folder)) == before
    assert sys.path == path


def assert_said(err: str, says: str) -> None:
    """One line; under it, lines of the user's own modules alone."""
    first, *rest = err.splitlines()
    assert first.startswith("captum-pullback: error: ")
    assert re.search(says, first), first
    assert "Traceback" not in err
    assert all(row.startswith("  ") for row in rest), err
    for row in rest:
        if row.startswith("  File"):
            assert re.match(r'  File "\w+\.py", line \d+', row), row


@pytest.mark.parametrize(
    ("line", "says", "code"),
    [
        ("explain noise.png --model tiny:key", "tiny:key fails on noise.png: KeyError", 2),
        ("explode", "invalid choice: 'explode'", 2),
    ],
)
def test_as_the_installed_command(folder: Path, line: str, says: str, code: int) -> None:
    """Which does not have the working folder on its path by itself."""
    start = "import sys; from captum_pullback.commands.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-s", "-c", start,
         *arguments(line)],
        capture_output=True, text=True, check=False,
        env=environment(),
    )  # fmt: skip
    assert done.returncode == code
    assert_said(done.stderr, says)
    assert done.stdout == ""


def test_only_ones_own_lines_are_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those that led to the error, in the order in which they ran."""
    assert cli.main(arguments("explain noise.png --model tiny:key")) == 2
    lines = capsys.readouterr().err.splitlines()
    source = TINY.read_text().splitlines()
    shown = [
        (int(match[1]), below.strip())
        for row, below in itertools.pairwise(lines)
        if (match := re.match(r'  File "tiny\.py", line (\d+)', row))
    ]
    assert len(lines) == 1 + 2 * len(shown)
    assert [text for _, text in shown] == ["return self.run(x)", 'return {}["a key"]']
    assert all(source[number - 1].strip() == text for number, text in shown)


def test_a_fault_of_the_program_is_called_one(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("nobody thought of it")

    monkeypatch.setattr("captum_pullback.commands.explain._rows", fail)
    monkeypatch.setattr("captum_pullback.study.errors._is_own", lambda file: False)
    assert cli.main(arguments("explain noise.png")) == 1
    err = capsys.readouterr().err
    assert err.startswith(
        "captum-pullback: internal error: ZeroDivisionError: nobody thought of it. "
    )
    assert err.count("\n") == 1
    monkeypatch.setenv(cli.TRACEBACK, "1")
    assert cli.main(arguments("explain noise.png")) == 1
    assert "Traceback" in capsys.readouterr().err


def test_codes_are_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, warnings.catch_warnings():
        cli.main(["--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for code in (0, *CODES):
        assert re.search(rf"\b{code}, ", text)
