"""The command ``app``: what it refuses, and how; the page itself is for test_app_browser."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import Terminal, environment

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


@needs_gradio
def test_an_address_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"cannot listen on 127.0.0.1, port {port}" in said(capsys, "--port", port)


def test_what_is_asked_for_comes_first_and_the_embedded_network_too(
    folder: Path,
) -> None:
    (folder / "mine.py").write_text(
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


@pytest.mark.parametrize(
    ("given", "starts"),
    [
        ([], "semantic"),
        (["--rules", "excitation"], "excitation"),
        (["--rules", " max_pool = differentiated"], "semantic,max_pool=differentiated"),
    ],
)
def test_rules_are_spelled_in_one_way(given: list[str], starts: str) -> None:
    (loaded,) = app._networks(parser().parse_args(["app", *given])).values()
    assert loaded.rules == starts


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
    @contextlib.contextmanager
    def serving(*_: object) -> Iterator[str]:
        yield "http://127.0.0.1:7860/"

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "serving", serving)
    monkeypatch.setattr(app.time, "sleep", interrupt)
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    ends = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = [signal.getsignal(end) for end in ends]
    try:
        assert cli.main(["app", "--no-browser"]) == 0
    finally:
        for end, handler in zip(ends, before, strict=True):
            signal.signal(end, handler)
    done = re.findall(r"captum-pullback: (.*?) \.\.\.", shown.getvalue())
    assert done == ["loading PyTorch", "loading embedded", "starting the page"]
    assert capsys.readouterr().out == "the app is at http://127.0.0.1:7860/ (Ctrl-C stops it)\n"


@contextmanager
def started(tmp_path: Path, *arguments: str, ending: int = signal.SIGTERM) -> Iterator[list[str]]:
    """A running app, by the addresses that it names; ended by a signal, after which all is gone."""
    process = subprocess.Popen(
        [sys.executable, "-m", "captum_pullback", "app", "--no-browser", *arguments],
        env=environment(TMPDIR=str(tmp_path)),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    addresses: list[str] = []
    try:
        for line in process.stdout:
            addresses += re.findall(r"http://\S+", line)
            if addresses and ("0.0.0.0" not in arguments or len(addresses) == 2):
                break
        assert addresses, "it has started"
        assert list(tmp_path.glob("captum_pullback-*")), "its folder is there"
        yield addresses
    finally:
        process.send_signal(ending)
        rest = process.communicate(timeout=60)[0]
    assert process.returncode == 0, rest
    assert "Traceback" not in rest, rest
    assert not list(tmp_path.glob("captum_pullback-*"))


def status(url: str, method: str = "GET", path: str = "/", **headers: str) -> int:
    address = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=20)
    try:
        connection.request(method, path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@needs_gradio
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signal here")
@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_an_address_of_ipv6_and_a_terminal_that_is_closed(tmp_path: Path) -> None:
    with started(tmp_path, "--host", "::1", ending=signal.SIGHUP) as (url,):
        assert re.fullmatch(r"http://\[::1\]:\d+/", url)
        assert status(url) == 200
        assert status(url, Host="[::1]") == 200
        assert status(url, Host="attacker.example") == 400
        assert (
            status(url, "POST", "/gradio_api/queue/join", Origin="http://attacker.example") == 403
        )


@needs_gradio
def test_everybodys_address_can_be_opened_by_others(tmp_path: Path) -> None:
    """And, with a name, by no other name; the page starts with the rules of the command."""
    rules = "excitation,max_pool=differentiated"
    arguments = ("--host", "0.0.0.0", "--allow-host", "box.example", "--rules", rules)
    with started(tmp_path, *arguments) as addresses:
        assert len(addresses) == 2
        host = urllib.parse.urlsplit(addresses[1]).hostname
        assert host not in ("0.0.0.0", "localhost", "127.0.0.1")
        assert urllib.parse.urlsplit(addresses[1]).port == urllib.parse.urlsplit(addresses[0]).port
        assert status(addresses[0], Host="box.example:1") == 200
        assert status(addresses[0], Host="attacker.example") == 400
        assert [status(address) for address in addresses] == [200, 200]
        with urllib.request.urlopen(f"{addresses[0]}config", timeout=20) as answer:
            parts = json.load(answer)["components"]
    (radio,) = (p["props"] for p in parts if p["props"].get("elem_id") == "cp-rules")
    assert radio["value"] == rules
    assert [value for _, value in radio["choices"]] == ["semantic", "excitation", rules]


def test_the_address_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert app._name_for_others("127.0.0.1") == ""
    assert app._name_for_others("box.example") == ""

    class Unconnected(socket.socket):
        def connect(self, address: object) -> None:
            raise OSError("network is unreachable")

    monkeypatch.setattr(socket, "socket", Unconnected)
    monkeypatch.setattr(socket, "gethostname", lambda: "box")
    assert app._name_for_others("0.0.0.0") == "box"
