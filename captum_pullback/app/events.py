"""Which control calls which handler. Any event may come again before the last one is answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from captum_pullback.app.actions import Actions
from captum_pullback.app.takeaway import ascent_file, explanation_file

__all__ = ["connect"]

#: Settings that affect explanations only; the others affect ascents, too.
_EXPLANATION_ONLY = ("method", "show")
_CLIMB = ("steps", "step_size", "radius", "bounded", "compare")
#: Controls that an answer may set.
_DELIVERED = (
    "targets", "layer", "pin", "temperature", "pool", "channel", "steps", "step_size", "radius",
    "answer_code", "ascent_code",
)  # fmt: skip
_DOWNLOAD = "(file) => window.cp.download(file)"


def connect(page: gr.Blocks, do: Actions, parts: dict[str, Any]) -> None:
    """Connect the controls, by name, to their handlers."""
    do.parts = parts
    desk, turn, file = parts["desk"], parts["turn"], parts["file"]
    shown = [parts[name] for name in ("status", "predictions", "answers", "ascents")]

    def on(events: list[Any], run: Callable[..., Any], about: str, *values: Any) -> None:
        """Connect a handler; the page numbers its events, and dims what they are about to change.

        Gradio does not validate the values, as its messages are not for users: `desk.read` does.
        """
        control = next((name for name in _DELIVERED if parts[name] in values), "")
        js = f"(...given) => window.cp.asked('{about}', '{control}', given)"
        gr.on(
            events, run, [*values, desk, turn], shown, js=js, trigger_mode="multiple",
            concurrency_id="asked", concurrency_limit=16, show_progress="hidden",
            api_visibility="private", preprocess=values == (parts["upload"],),
        )  # fmt: skip

    on([page.load], do.look_first, "photo")
    on([parts["picks"].click], do.look_at_sample, "photo")
    on([parts["upload"].upload], do.look_at_file, "photo", parts["upload"])
    on([parts["network"].input], do.change_network, "photo", parts["network"])
    on([parts["predictions"].click], do.pick_class, "all")
    on([parts["fit"].click], do.fit, "all")
    on([parts["pin"].click], do.pin, "explanation")
    on([parts["ascend"].click], do.ascend, "ascent")
    for name in (
        "targets", "method", "temperature", "unit", "rules", "follow", "pool", "what", "layer",
        "channel", "everywhere", "show",
    ):  # fmt: skip
        about = "explanation" if name in _EXPLANATION_ONLY else "all"
        on(_moves(parts[name]), do.change(name), about, parts[name])
    for name in _CLIMB:
        on(_moves(parts[name]), do.change_climb(name), "ascent", parts[name])

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    again: dict[str, Any] = {**quiet, "trigger_mode": "multiple"}
    parts["stop"].click(
        do.stop, [desk, turn], [parts["answers"], parts["status"]], queue=False, preprocess=False,
        js="(...given) => window.cp.stopping(given)", **again,
    )  # fmt: skip
    # Controls are not outputs of the handlers: Gradio clears outputs that an answer leaves out.
    for name in ("status", "answers"):
        parts[name].deliver(
            None, None, [parts[one] for one in _DELIVERED],
            js=f"() => window.cp.delivered({list(_DELIVERED)})", **again,
        )  # fmt: skip
    # Show only what has an effect. This runs in the browser, so it cannot come too late.
    stand = [parts["follow"], parts["what"], parts["method"]]
    for tab, moves in (
        ("", [page.load, *(part.input for part in stand)]),
        ("explain", [parts["explain_tab"].select]),
        ("ascend", [parts["ascend_tab"].select]),
    ):
        js = f"(...stand) => window.cp.controls('{tab}', ...stand)"
        gr.on(moves, None, stand, None, js=js, **again)
    for write, buttons in (
        (explanation_file, parts["answer_files"]),
        (ascent_file, parts["ascent_files"]),
    ):
        for kind, button in buttons.items():
            written = button.click(write(do.networks, kind), desk, file, **again)
            written.success(None, file, js=_DOWNLOAD, **again)
    page.unload(do.leave)


def _moves(control: Any) -> list[Any]:
    """Return the events by which a user changes a control."""
    if isinstance(control, gr.Slider):
        return [control.input, control.release]
    return [control.input]
