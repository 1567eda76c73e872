"""How the page is served: to this machine alone unless told otherwise, and without the outside."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from typing import Any

from captum_pullback.app.question import Loaded, Photo

__all__ = ["OUTSIDE", "serving"]

#: What the page may load, for the browser to see to: nothing that is not this server's.
OUTSIDE = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "media-src 'self' data: blob:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LARGEST_FILE = 256 * 2**20


@contextmanager
def serving(
    networks: Mapping[str, Loaded],
    samples: list[Photo],
    host: str = "127.0.0.1",
    port: int | None = None,
) -> Iterator[str]:
    """Serves the page while the block runs. Its folder of files is gone afterwards.

    Args:
        networks: by name; the first is chosen at the start.
        samples: photographs that are at hand.
        host: the address to listen at.
        port: None for the first free one from 7860 on.

    Yields:
        Where the page is.

    Raises:
        OSError: the port is not to be had.
    """
    folder = tempfile.mkdtemp(prefix="captum_pullback-")
    try:
        _prepare(folder)
        from captum_pullback.app.page import build  # Gradio reads its settings when imported

        page = build(networks, samples)
        page.queue(default_concurrency_limit=8)
        static = resources.files("captum_pullback.app") / "static"
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            inbrowser=False,
            quiet=True,
            prevent_thread_lock=True,
            show_error=True,
            allowed_paths=[],
            max_file_size=_LARGEST_FILE,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            app_kwargs={"middleware": _middleware(host), "docs_url": None, "redoc_url": None},
            theme=_theme(),
            css=(static / "style.css").read_text(encoding="utf-8"),
            head=f"<script>{(static / 'page.js').read_text(encoding='utf-8')}</script>",
            favicon_path=str(static / "icon.svg"),
        )
        try:
            yield url
        finally:
            page.close(verbose=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prepare(folder: str) -> None:
    """Tells Gradio, before it is imported, to keep to itself."""
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]  # one of them could open folders, or share the page
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = folder
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # It asks itself whether it is there: not by way of a proxy.
    for name in ("NO_PROXY", "no_proxy"):
        known = [part for part in os.environ.get(name, "").split(",") if part]
        os.environ[name] = ",".join(dict.fromkeys([*known, *_LOOPBACK]))


def _middleware(host: str) -> list[Any]:
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    guards = [Middleware(_Guard)]
    if host in _LOOPBACK:  # no other name may lead here, as by a DNS that changes its mind
        hosts = ["127.0.0.1", "localhost", "[::1]", "::1"]
        guards.append(Middleware(TrustedHostMiddleware, allowed_hosts=hosts))
    return guards


class _Guard:
    """Adds to each answer what the page may load: an ASGI middleware."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", OUTSIDE.encode()),
                    (b"referrer-policy", b"no-referrer"),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        await self.app(scope, receive, guarded)


def _theme() -> Any:
    import gradio as gr

    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
    theme = gr.themes.Base(
        primary_hue="teal",
        neutral_hue="slate",
        radius_size="md",
        spacing_size="sm",
        font=[gr.themes.Font(name) for name in fonts],
        font_mono=[gr.themes.Font(name) for name in mono],
    )
    return theme.set(
        body_background_fill="#f6f7f9",
        body_background_fill_dark="#0e1217",
        block_background_fill="white",
        block_background_fill_dark="#161c24",
        block_border_width="0px",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        panel_border_width="0px",
    )
