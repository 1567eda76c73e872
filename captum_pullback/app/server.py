"""Serving the page: to this machine only unless told otherwise, and without outside resources."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from captum_pullback.app.guard import LARGEST_UPLOAD, LOOPBACK, Guard
from captum_pullback.app.question import Loaded, Photo

__all__ = ["serving"]


@contextmanager
def serving(
    networks: Mapping[str, Loaded],
    samples: list[Photo],
    host: str = "127.0.0.1",
    port: int | None = None,
    names: Collection[str] = (),
) -> Iterator[str]:
    """Serve the page while the block runs. Its folder of files is removed afterwards.

    Args:
        networks: The networks by name; the first is chosen at the start.
        samples: The sample photographs.
        host: The address to listen on.
        port: The port; None for the first free one from 7860 on.
        names: Other host names that requests may use. On a loopback address all other names are
                refused, which prevents DNS rebinding; on any other address, none given allows all.

    Yields:
        The address of the page.

    Raises:
        OSError: The port is taken.
    """
    folder = tempfile.mkdtemp(prefix="captum_pullback-")
    try:
        _prepare(folder)
        from starlette.middleware import Middleware

        from captum_pullback.app.page import build  # Gradio reads its settings when imported

        page = build(networks, samples)
        page.queue(default_concurrency_limit=8)
        if names or host in LOOPBACK:
            names = {name.strip("[]").lower() for name in (*LOOPBACK, host, *names)}
        static = resources.files("captum_pullback.app") / "static"
        _, url, _ = page.launch(
            server_name=f"[{host}]" if ":" in host else host,
            server_port=port,
            share=False,
            inbrowser=False,
            quiet=True,
            prevent_thread_lock=True,
            show_error=True,
            allowed_paths=[],
            max_file_size=LARGEST_UPLOAD,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            app_kwargs={
                "middleware": [Middleware(Guard, folder=Path(folder), names=names)],
                "docs_url": None,
                "redoc_url": None,
            },
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
    """Configure Gradio, before it is imported, to contact nobody."""
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]  # some of them open folders, or share the page
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = folder
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # Gradio checks whether its own server is up: without a proxy.
    for name in ("NO_PROXY", "no_proxy"):
        known = [part for part in os.environ.get(name, "").split(",") if part]
        os.environ[name] = ",".join(dict.fromkeys([*known, *LOOPBACK]))


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
        # Legible everywhere: contrast of at least 4.5 to 1, also of placeholders and slider limits.
        body_text_color_subdued="#4f5b68",
        body_text_color_subdued_dark="#a3b0be",
        input_placeholder_color="#4f5b68",
        input_placeholder_color_dark="#a3b0be",
        block_info_text_color="#4f5b68",
        block_info_text_color_dark="#a3b0be",
        block_label_text_color="#4f5b68",
        block_title_text_color="#4f5b68",
        block_title_text_color_dark="#a3b0be",
        block_label_text_color_dark="#a3b0be",
        color_accent="#0f766e",
        button_primary_background_fill="#0f766e",
        button_primary_background_fill_hover="#115e59",
        button_primary_background_fill_dark="#0f766e",
        button_primary_background_fill_hover_dark="#115e59",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        block_border_width="0px",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        panel_border_width="0px",
    )
