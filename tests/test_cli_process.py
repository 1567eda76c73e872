"""The command line as a process: its start, its end, and the terminal it writes to."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Terminal, command, environment, new_files

import captum_pullback
from captum_pullback.commands import cli
from captum_pullback.commands.terminal import doing

QUICK = ("explain", "noise.png", "--no-scores", "--model", "tiny:network")


def test_no_command_and_an_unknown_one(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["explode"]):
        assert cli.main(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_ctrl_c(folder: Path) -> None:
    done = command("explain", "noise.png", "--model", "tiny:interrupting", "--npz", "m.npz")
    assert done.returncode == 130
    assert (done.stdout, done.stderr) == ("", "captum-pullback: interrupted\n")
    assert new_files(folder) == set()


@pytest.mark.parametrize(
    "code",
    [
        "import captum_pullback; captum_pullback.__version__; dir(captum_pullback)",
        "from captum_pullback.commands.cli import main; main(['explain', '--help'])",
        "from captum_pullback.commands.cli import main; main(['app', '--help'])",
        "from captum_pullback.commands.cli import main; main(['explain', '--top-k', '-1'])",
    ],
)
def test_torch_is_imported_when_it_is_needed(code: str) -> None:
    """So that help, and the bare package, are there at once."""
    code = (
        f"import sys\ntry: {code}\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'captum', 'PIL', 'torchvision'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment()
    )


def test_names_of_the_package_are_there_when_asked_for() -> None:
    assert set(captum_pullback.__all__) <= set(dir(captum_pullback))
    for name in captum_pullback.__all__:
        assert getattr(captum_pullback, name) is not None
    assert {*captum_pullback._HOMES, "__version__"} == set(captum_pullback.__all__)
    from captum_pullback.attribution import ExcitationPullback

    assert captum_pullback.ExcitationPullback is ExcitationPullback
    with pytest.raises(AttributeError, match="has no attribute 'ExcitationPulback'"):
        captum_pullback.ExcitationPulback  # noqa: B018


def test_ctrl_c_during_the_start(folder: Path) -> None:
    """While torch is being imported, where it would come out as some other error."""
    (folder / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "            raise ImportError('what torch makes of it')\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
    )
    done = command("explain", "noise.png", env=environment(folder))
    assert done.returncode == 130
    assert (done.stdout, done.stderr) == ("", "captum-pullback: interrupted\n")


def test_what_takes_a_while_is_shown_and_wiped_away(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    with doing("loading a\nnetwork"):
        text = "captum-pullback: loading a?network ..."
        assert shown.getvalue() == text
    assert shown.getvalue() == f"{text}\r{' ' * len(text)}\r"
    monkeypatch.setattr(sys, "stderr", plain := io.StringIO())
    with doing("loading a network"):
        pass
    assert plain.getvalue() == "", "only on a terminal"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_standard_output_that_is_full(folder: Path) -> None:
    with open("/dev/full", "w") as full:
        done = command(*QUICK, stdout=full)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "standard output cannot be written (No space left on device)" in done.stderr


def test_a_closed_pipe_is_no_error(folder: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = command(*QUICK, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "explanation.png").exists()
