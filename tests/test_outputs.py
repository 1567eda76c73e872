"""Files are written completely or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from command_line import new_files

from captum_pullback.commands import cli, explain
from captum_pullback.outputs import OutputError, replacing, writable


def tiny(*arguments: str) -> int:
    """The command line in this process, on the tiny network."""
    return cli.main(["explain", "--model", "tiny:network", *arguments])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_write_keeps_the_old_file(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    def write(figure: object, file: object, format: str) -> None:
        file.write(b"half of it")  # type: ignore[attr-defined]
        raise error

    (folder / "explanation.png").write_bytes(b"the old one")
    monkeypatch.setattr(explain, "save_figure", write)
    assert tiny("noise.png", "--no-scores") == (130 if isinstance(error, KeyboardInterrupt) else 2)
    assert capsys.readouterr().err.count("\n") == 1
    assert (folder / "explanation.png").read_bytes() == b"the old one"
    assert new_files(folder) == {"explanation.png"}


def test_replacing_keeps_permissions_and_follows_links(tmp_path: Path) -> None:
    real, link = tmp_path / "real.png", tmp_path / "link.png"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to(real)
    with replacing(writable(link, [".png"])) as file:
        file.write(b"new")
    assert real.read_bytes() == b"new"
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    if os.geteuid() != 0:  # root may write anywhere
        real.chmod(0o400)
        with pytest.raises(OutputError, match="permissions"):
            writable(real, [".png"])


def test_a_device_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "null.png").symlink_to(os.devnull)
    with pytest.raises(OutputError, match="not a regular file"):
        writable(tmp_path / "null.png", [".png", ""])
    assert not Path(os.devnull).is_file()


def test_a_folder_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a read-only disk, where nothing can be removed either."""

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(
        OutputError, match=r"^a\.png: nothing can be written in .*Read-only"
    ) as caught:
        writable("a.png", [".png"])
    assert ".part" not in str(caught.value)
    with pytest.raises(OutputError, match="cannot be written") as caught, replacing(Path("a.png")):
        pass
    assert ".part" not in str(caught.value)
