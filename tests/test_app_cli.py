"""The command ``app``: what it refuses, and how; the page itself is for test_app_browser."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from captum_pullback.app import command as app
from captum_pullback.app import server
from captum_pullback.commands import cli
from captum_pullback.commands.parser import parser

needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="gradio is not installed: extra 'app'"
)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said on stderr of a start that fails."""
    assert cli.main(["app", "--no-browser", *arguments]) == 2
    return capsys.readouterr().err


def test_without_gradio_one_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'captum-pullback[app]'" in said(capsys)


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_ports_that_are_none(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "from 1 to 65535" in said(capsys, f"--port={port}")


@needs_gradio
def test_networks_and_addresses_that_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no network is called 'resnet5'" in said(capsys, "--model", "resnet5")
    assert "wants one --model" in said(capsys, "--weights", "x.pt")
    assert "cannot listen at nowhere.invalid" in said(capsys, "--host", "nowhere.invalid")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"cannot listen at 127.0.0.1, port {port}" in said(capsys, "--port", port)


def test_what_is_asked_for_comes_first_and_the_embedded_network_too(
    working_folder: Path,
) -> None:
    (working_folder / "mine.py").write_text(
        "from torch import nn\n"
        "def network():\n"
        "    return nn.Sequential(nn.Conv2d(3, 2, 3, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),\n"
        "                         nn.Flatten(), nn.Linear(2, 7))\n"
    )
    given = parser().parse_args(["app", "--model", "mine:network", "--model", "mine:network"])
    networks = app._networks(given)
    assert list(networks) == ["mine:network", "embedded"]
    assert networks["mine:network"].outputs == 7
    assert networks["mine:network"].layers["0"] == (2, 28, 28)
    assert networks["embedded"].outputs == 24
    assert networks["embedded"].temperature == 1.0


def test_settings_from_outside_do_not_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Gradio's own environment variables could open folders, or share the page."""
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "1")
    for name in ("HF_HUB_DISABLE_TELEMETRY", "no_proxy"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("GRADIO_SHARE", "True")
    monkeypatch.setenv("GRADIO_ALLOWED_PATHS", "/etc")
    monkeypatch.setenv("NO_PROXY", "example.org")
    server._prepare(str(tmp_path))
    found = {name: value for name, value in os.environ.items() if name.startswith("GRADIO_")}
    assert found == {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(tmp_path)}
    assert os.environ["NO_PROXY"] == "example.org,127.0.0.1,localhost,::1"


@needs_gradio
def test_the_start_says_what_it_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    @contextlib.contextmanager
    def serving(*_: object) -> Iterator[str]:
        yield "http://127.0.0.1:7860/"

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "serving", serving)
    monkeypatch.setattr(app.time, "sleep", interrupt)
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert cli.main(["app", "--no-browser"]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    done = re.findall(r"captum-pullback: (.*?) \.\.\.", shown.getvalue())
    assert done == ["loading PyTorch", "loading embedded", "starting the page"]
    assert capsys.readouterr().out == "the app is at http://127.0.0.1:7860/ (Ctrl-C stops it)\n"
