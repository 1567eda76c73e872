"""What people are told when something cannot be done: no internals, and no HTML of others."""

from __future__ import annotations

from html import escape

import gradio as gr

from captum_pullback.commands.terminal import UsageError
from captum_pullback.zoo.photos import PhotoError

__all__ = ["is_ours", "refused", "words"]

_KNOWN = (PhotoError, UsageError, RuntimeError, ValueError, MemoryError)


def is_ours(error: object) -> bool:
    """Whether it is a mistake of this package, whose traceback belongs in the terminal."""
    return isinstance(error, Exception) and not isinstance(error, _KNOWN)


def words(error: object) -> str:
    """An error, or what is said instead of one, as a sentence."""
    if is_ours(error):
        return "Something went wrong here; the terminal says more."
    text = " ".join(str(error).split()) or type(error).__name__
    return text[0].upper() + text[1:] + "." * (text[-1] not in ".!?")


def refused(error: object, title: str) -> gr.Error:
    """A note in the corner of the page, with a title that says what did not work."""
    return gr.Error(escape(words(error)), title=title, print_exception=is_ours(error))
