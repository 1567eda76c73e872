"""The page's file buttons: what is on the page, as files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import gradio as gr

from captum_pullback.app import code, keep
from captum_pullback.app.desk import Desk
from captum_pullback.app.guard import MOST_BYTES, MOST_FILES, trim
from captum_pullback.app.question import Loaded
from captum_pullback.app.refusals import refuse

__all__ = ["ascent_file", "explanation_file"]


def explanation_file(networks: Mapping[str, Loaded], kind: str) -> Callable[[Desk], str | None]:
    """Make the handler that writes the explanation on the page as ``png``, ``npz`` or ``py``."""

    def write(desk: Desk) -> str | None:
        answer, pinned, show = desk.answer, desk.pinned, desk.wanted()[1].show
        if answer is None:
            refuse("There is no explanation yet.", "Nothing to download")
            return None
        path = _fresh(f"explanation.{kind}")
        if kind == "npz":
            keep.arrays_of(answer, path)
        elif kind == "py":
            loaded = networks[answer.question.network]
            path.write_text(code.explanation_code(loaded, answer), encoding="utf-8")
        else:
            shown = [answer] if pinned is None else [pinned, answer]
            keep.figure_of([(networks[one.question.network], one) for one in shown], show, path)
        return str(path)

    return write


def ascent_file(networks: Mapping[str, Loaded], kind: str) -> Callable[[Desk], str | None]:
    """Make the same for the ascent."""

    def write(desk: Desk) -> str | None:
        result = desk.ascent
        if result is None:
            refuse("There is no ascent yet: click Ascend.", "Nothing to download")
            return None
        path, loaded = _fresh(f"ascent.{kind}"), networks[result.question.network]
        if kind == "npz":
            keep.arrays_of_ascent(result, path)
        elif kind == "py":
            path.write_text(code.ascent_code(loaded, result), encoding="utf-8")
        else:
            keep.figure_of_ascent(loaded, result, path)
        return str(path)

    return write


def _fresh(name: str) -> Path:
    """Return a path of this name in a new folder, which is removed when the app ends."""
    folder = Path(gr.utils.get_upload_folder())
    trim(folder, MOST_FILES - 1, MOST_BYTES)
    return Path(tempfile.mkdtemp(dir=folder)) / name
