"""What the server refuses: names, origins and sizes; and how much it keeps."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from captum_pullback.app import guard
from captum_pullback.app.guard import Guard, trim


def answered(tmp_path: Path, method: str, path: str, names: Any, **headers: str) -> int:
    """The status of a request; 200 where it was handed on."""

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": method, "path": path,
        "headers": [
            (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
        ],
    }  # fmt: skip
    asyncio.run(Guard(behind, tmp_path, names)(scope, None, send))
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:7860", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:7860", 200),
        ("[::1]", 200),
        ("attacker.example", 400),
        ("attacker.example:7860", 400),
        ("127.0.0.1.attacker.example", 400),
        ("127.0.0.1@attacker.example", 400),
        ("attacker.example/@127.0.0.1", 400),
        ("[::1", 400),
        ("", 400),
    ],
)
def test_names(tmp_path: Path, host: str, status: int) -> None:
    assert answered(tmp_path, "GET", "/", guard.LOOPBACK, host=host) == status


def test_without_names_any_will_do(tmp_path: Path) -> None:
    assert answered(tmp_path, "GET", "/", (), host="box.example") == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://127.0.0.1:7860", 200),
        ("http://127.0.0.1:1234", 403),
        ("http://127.0.0.1", 403),
        ("https://attacker.example", 403),
        ("http://localhost:7860", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_origins(tmp_path: Path, origin: str | None, status: int) -> None:
    headers = {"host": "127.0.0.1:7860", "content_length": "10"}
    headers |= {} if origin is None else {"origin": origin}
    for path in ("/gradio_api/queue/join", "/gradio_api/upload"):
        assert answered(tmp_path, "POST", path, guard.LOOPBACK, **headers) == status
    assert answered(tmp_path, "GET", "/", guard.LOOPBACK, **headers) == 200, "reading is free"


@pytest.mark.parametrize(
    ("path", "length", "status"),
    [
        ("/gradio_api/upload", "1000", 200),
        ("/gradio_api/upload", str(256 * 2**20), 200),
        ("/gradio_api/upload", str(257 * 2**20), 413),
        ("/gradio_api/queue/join", str(2 * 2**20), 413),
        ("/gradio_api/queue/join", "none", 411),
        ("/gradio_api/upload", "-1", 411),
    ],
)
def test_sizes(tmp_path: Path, path: str, length: str, status: int) -> None:
    headers = {"host": "localhost", "content_length": length}
    assert answered(tmp_path, "POST", path, (), **headers) == status


def test_a_length_has_to_be_said(tmp_path: Path) -> None:
    assert answered(tmp_path, "POST", "/gradio_api/upload", (), host="localhost") == 411


def files(folder: Path, *sizes: int) -> None:
    for age, size in enumerate(sizes):
        path = folder / str(age) / "photo.png"
        path.parent.mkdir()
        path.write_bytes(b"0" * size)
        os.utime(path, (1000 - age, 1000 - age))


def left(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.rglob("*.png"))


def test_the_oldest_go_when_there_are_too_many(tmp_path: Path) -> None:
    files(tmp_path, 1, 1, 1, 1)
    trim(tmp_path, 4, 4)
    assert left(tmp_path) == ["0", "1", "2", "3"]
    trim(tmp_path, 2, 4)
    assert left(tmp_path) == ["0", "1"]


def test_the_oldest_go_when_they_are_too_large(tmp_path: Path) -> None:
    files(tmp_path, 10, 10, 10)
    trim(tmp_path, 9, 25)
    assert left(tmp_path) == ["0", "1"]


def test_an_upload_makes_room_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MOST_BYTES", 100)
    files(tmp_path, 40, 40)
    headers = {"host": "localhost", "content_length": "50"}
    assert answered(tmp_path, "POST", "/gradio_api/upload", (), **headers) == 200
    assert left(tmp_path) == ["0"]
    headers["content_length"] = "101"
    assert answered(tmp_path, "POST", "/gradio_api/upload", (), **headers) == 503
