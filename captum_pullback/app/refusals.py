"""What people are told when something cannot be done: no internals, and no HTML of others."""

from __future__ import annotations

import traceback
from html import escape

import gradio as gr

from captum_pullback.study.errors import UsageError
from captum_pullback.zoo.photos import PhotoError

__all__ = ["refuse", "words"]

_KNOWN = (PhotoError, UsageError, RuntimeError, ValueError, MemoryError)


def words(error: Exception) -> str:
    """An error in one line; of one that is a mistake of this package, the terminal says more."""
    if isinstance(error, _KNOWN):
        return " ".join(str(error).split()) or type(error).__name__
    traceback.print_exception(error)
    return "something went wrong here; the terminal says more"


def refuse(why: str, title: str) -> None:
    """A note in the corner of the page, with a title that says what did not work.

    Gradio's own titles are never shown, and its errors leave a traceback in the terminal.
    """
    gr.Warning(f"<b>{escape(title)}</b><br>{escape(why)}")
