"""What the server accepts: requests to its own name, from its own pages, and of bounded size."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

__all__ = ["LARGEST_UPLOAD", "LOOPBACK", "MOST_BYTES", "MOST_FILES", "OUTSIDE", "Guard", "trim"]

#: The content security policy: the browser loads nothing but what this server sends.
OUTSIDE = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "media-src 'self' data: blob:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
LOOPBACK = ("127.0.0.1", "localhost", "::1")
LARGEST_UPLOAD = 256 * 2**20
MOST_FILES, MOST_BYTES = 200, 2**30
_LARGEST_REQUEST = 2**20  # bytes of settings, which are short
_READING = ("GET", "HEAD", "OPTIONS")


class Guard:
    """An ASGI middleware that refuses requests that no page of this server sends.

    Args:
        app: The application behind it.
        folder: Where uploads are kept; the oldest are removed when there are too many.
        names: The host names, without ports, that requests may use; empty to allow any.
    """

    def __init__(self, app: Callable[..., Any], folder: Path, names: Collection[str]) -> None:
        self.app, self.folder, self.names = app, folder, frozenset(names)
        self._arriving = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): v.decode("latin-1") for name, v in scope["headers"]}
        status, words = self._refusal(scope, headers)
        if status:
            await _answer(send, status, words)
            return
        if scope["type"] == "websocket" or scope["method"] in _READING:
            await self.app(scope, receive, _guarded(send))
            return
        size = int(headers["content-length"])
        self._arriving += size
        try:
            if _uploads(scope):
                trim(self.folder, MOST_FILES - 1, MOST_BYTES - self._arriving)
            await self.app(scope, receive, _guarded(send))
        finally:
            self._arriving -= size

    def _refusal(self, scope: Any, headers: dict[str, str]) -> tuple[int, str]:
        """Return why this request is refused, as a status and a sentence; 0 if it is accepted."""
        host = headers.get("host", "")
        if self.names and _name(host) not in self.names:
            return 400, "This server is not known by that name."
        writing = scope["type"] == "websocket" or scope["method"] not in _READING
        if not writing:
            return 0, ""
        # A page of another origin can send a form or a file, but cannot hide its origin.
        origin = headers.get("origin")
        if origin is not None and urllib.parse.urlsplit(origin).netloc.lower() != host.lower():
            return 403, "Requests from other pages are not accepted."
        if scope["type"] == "websocket":
            return 0, ""
        length = headers.get("content-length", "")
        if not length.isdecimal():
            return 411, "The request must state its length."
        if int(length) > (LARGEST_UPLOAD + 2**16 if _uploads(scope) else _LARGEST_REQUEST):
            return 413, "This is too large."
        if _uploads(scope) and self._arriving + int(length) > MOST_BYTES:
            return 503, "Too much is being uploaded at once: try again later."
        return 0, ""


def _uploads(scope: Any) -> bool:
    return str(scope["path"]).rstrip("/").endswith("/upload")


def trim(folder: Path, most_files: int, most_bytes: int) -> None:
    """Remove the oldest files of a folder until so many files, and so many bytes, are left."""
    files = sorted(_files(folder), reverse=True)
    total = 0
    for count, (_, size, path) in enumerate(files, start=1):
        total += size
        if count > most_files or total > most_bytes:
            path.unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    for path in folder.rglob("*"):
        try:
            about = path.stat()
        except OSError:  # it has been removed meanwhile
            continue
        if path.is_file():
            yield about.st_mtime, about.st_size, path


def _name(host: str) -> str:
    """Return a host without its port, and without the brackets around an IPv6 address."""
    return (urllib.parse.urlsplit(f"//{host}").hostname or "") if _plausible(host) else ""


def _plausible(host: str) -> bool:
    try:
        urllib.parse.urlsplit(f"//{host}")
    except ValueError:
        return False
    return not set(host) & set("/\\@?# ")


def _guarded(send: Any) -> Callable[[Any], Any]:
    """Add the content security policy to an answer."""

    async def guarded(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *message.get("headers", []),
                (b"content-security-policy", OUTSIDE.encode()),
                (b"referrer-policy", b"same-origin"),
                (b"x-content-type-options", b"nosniff"),
            ]
        await send(message)

    return guarded


async def _answer(send: Any, status: int, words: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": words.encode()})
