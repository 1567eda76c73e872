"""What users are told when something cannot be done: no internals, and no HTML of Gradio's."""

from __future__ import annotations

import traceback
from html import escape

import gradio as gr

from captum_pullback.study.errors import UsageError
from captum_pullback.zoo.photos import PhotoError

__all__ = ["refuse", "words"]

_KNOWN = (PhotoError, UsageError, RuntimeError, ValueError, MemoryError)


def words(error: Exception) -> str:
    """Return an error in one line; for a bug of this package it refers to the terminal."""
    if isinstance(error, _KNOWN):
        return " ".join(str(error).split()) or type(error).__name__
    traceback.print_exception(error)
    return "something went wrong here; the terminal says more"


def refuse(why: str, title: str) -> None:
    """Show a note in the corner of the page, with a title that says what did not work.

    Gradio's own titles are never shown: its errors leave a traceback in the terminal.
    """
    gr.Warning(f"<b>{escape(title)}</b><br>{escape(why)}")
