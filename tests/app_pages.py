"""A person at the app: a server in a process of its own, and pages in a real headless Chromium."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import browser
import pytest
from command_line import environment

MISSING = browser.missing()
#: For each module of tests that uses the fixtures `server` and `visit`.
MARKS = [
    pytest.mark.skipif(bool(MISSING), reason=MISSING or "all is here"),
    # Playwright's loop of asyncio leaves a socket to the collector when it goes down.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
#: Milliseconds, on a machine that does other things too.
PATIENCE = 60_000

#: Runs at the start of the app's process, and notes whatever leaves this machine.
WATCH = """
import os, socket

def note(host):
    if host not in ("127.0.0.1", "localhost", "0.0.0.0", "::1", "", None):
        with open(os.environ["OUTSIDE"], "a") as file:
            print(host, file=file)

class Socket(socket.socket):
    def connect(self, address):
        note(address[0] if isinstance(address, tuple) else None)
        return super().connect(address)

def getaddrinfo(host, *args, **kwargs):
    note(host)
    return found(host, *args, **kwargs)

found, socket.getaddrinfo, socket.socket = socket.getaddrinfo, getaddrinfo, Socket
"""


@dataclass
class Server:
    """A running app: its address, its working folder and its folder of temporary files."""

    url: str
    folder: Path
    temporary: Path
    process: subprocess.Popen[str]


def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("cwd")
    temporary = tmp_path_factory.mktemp("tmp")
    home = tmp_path_factory.mktemp("home")
    modules = tmp_path_factory.mktemp("modules")
    (modules / "sitecustomize.py").write_text(WATCH)
    outside = modules / "outside.txt"
    process = subprocess.Popen(
        [
            sys.executable, "-W", "error::UserWarning:captum_pullback", "-m", "captum_pullback",
            "app", "--no-browser", "--model", "tiny:slow",
        ],
        cwd=folder,
        env={
            **environment(modules),
            "TMPDIR": str(temporary),
            "HOME": str(home),
            "OUTSIDE": str(outside),
            "GRADIO_SHARE": "True",  # what is set outside is no reason to open anything
            "GRADIO_ALLOWED_PATHS": "/etc",
            "HTTP_PROXY": "http://127.0.0.1:9",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    said = ""
    found = None
    try:
        while found is None and (line := process.stdout.readline()):
            said += line  # on a busy machine Matplotlib says first that it takes a moment
            found = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert found, said
        yield Server(found[0], folder, temporary, process)
    finally:
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=60)[0]
    assert process.returncode == 0, rest
    assert "Traceback" not in rest, rest
    assert not outside.exists(), outside.read_text()
    assert not list(folder.iterdir()), "nothing is written where the app was started"
    assert not [p for p in home.rglob("*") if p.is_file() and ".cache" not in str(p)]
    assert not list(temporary.glob("captum_pullback-*")), "its folder goes when it goes"


@dataclass
class Visitor:
    """A person at a page."""

    page: Any
    requests: list[str]
    errors: list[str]

    def settled(self) -> None:
        """Waits until the figures are there."""
        self.page.wait_for_function(
            "document.querySelector('#cp-answers .cp-figures') && !document.querySelector("
            "'.cp-blank, .cp-wait, .cp-progress, #cp-predictions.cp-old, #cp-answers.cp-old')",
            timeout=PATIENCE,
        )

    def maps(self) -> list[str]:
        """The pictures of the explanations, each as its address, which holds it."""
        images = self.page.locator("#cp-answers .cp-tile img").all()
        return [image.get_attribute("src") for image in images]

    def title(self, text: str) -> None:
        """Waits for an explanation of this title."""
        heading = self.page.locator("#cp-answers:not(.cp-old) h3", has_text=text).first
        heading.wait_for(timeout=PATIENCE)

    def temperature(self, value: str) -> None:
        box = self.page.locator("#cp-temperature input[type=number]")
        box.fill(value)
        box.press("Tab")
        self.title(f"T = {value}")

    def figures(self) -> dict[str, str]:
        """Those under the last map."""
        card = self.page.locator("#cp-answers .cp-figures").last
        terms, values = (card.locator(tag).all_inner_texts() for tag in ("dt", "dd"))
        return dict(zip(terms, values, strict=True))

    def downloaded(self, button: str, folder: Path) -> Path:
        """The file that a button gives."""
        with self.page.expect_download(timeout=PATIENCE) as download:
            self.page.locator(button).click()
        path = folder / download.value.suggested_filename
        download.value.save_as(path)
        return path


def visiting(chromium: Any, server: Server) -> Iterator[Any]:
    contexts = []

    def come(**options: Any) -> Visitor:
        context = chromium.new_context(accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        requests: list[str] = []
        errors: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.goto(server.url)
        visitor = Visitor(page, requests, errors)
        visitors.append(visitor)
        return visitor

    visitors: list[Visitor] = []
    yield come
    for visitor in visitors:
        hosts = {urllib.parse.urlsplit(url).hostname for url in visitor.requests}
        assert hosts - {None} == {"127.0.0.1"}, "no request leaves this machine"
        assert not visitor.errors, f"the page complains: {visitor.errors}"
    for context in contexts:
        context.close()


def use_embedded(visitor: Visitor) -> None:
    """The slow network is the first, since it was asked for."""
    visitor.page.locator("#cp-network input").click()
    visitor.page.get_by_role("option", name="embedded").click()
    header = visitor.page.locator("#cp-answers:not(.cp-old) header p", has_text="embedded")
    header.wait_for(timeout=PATIENCE)


def get(server: Server, path: str, **headers: str) -> tuple[int, bytes]:
    address = urllib.parse.urlsplit(server.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=20)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


#: Looks at each frame that is drawn, and notes what stands together on it, when that changes.
RECORD = """() => {
  window.frames_ = [];
  const text = (selector) => document.querySelector(selector)?.innerText ?? '';
  const top = (selector) =>
    Math.round((document.querySelector(selector)?.getBoundingClientRect().top ?? 0) + scrollY);
  let last = '';
  const look = () => {
    const answers = document.querySelector('#cp-answers');
    const note = {
      predicted: text('#cp-predictions li button > span:not(.cp-bar)'),
      photograph: text('#cp-answers header p').split(' \\u00b7 ')[1] ?? '',
      network: text('#cp-answers header p').split(' \\u00b7 ')[0] ?? '',
      map: text('#cp-answers .cp-tile:last-child h4'),
      images: answers.querySelectorAll('img').length,
      height: Math.round(answers.getBoundingClientRect().height),
      tops: ['#cp-answers', '.cp-files', '#cp-predictions', '#cp-targets', '#cp-temperature',
             '#cp-fit'].map(top),
      current: !document.querySelector('#cp-answers.cp-old, #cp-predictions.cp-old'),
    };
    const said = JSON.stringify(note);
    if (said !== last) window.frames_.push(note);
    last = said;
    requestAnimationFrame(look);
  };
  look();
}"""
