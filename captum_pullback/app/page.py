"""The page and its controls. `events` says what they do, `cards` what their answers look like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from captum_pullback.app.actions import Actions
from captum_pullback.app.cards import (
    card,
    message_card,
    samples_card,
    waiting_answer,
    waiting_predictions,
)
from captum_pullback.app.choices import class_choices, last_layer, layer_choices
from captum_pullback.app.desk import RANGES, rule_choices
from captum_pullback.app.events import connect
from captum_pullback.app.question import METHODS, Loaded, Photo
from captum_pullback.engine.softness import DEFAULT_TEMPERATURE
from captum_pullback.study.methods import METHODS as TITLES

__all__ = ["build"]

_PICK = """element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-pick]');
  if (button) trigger('click', {pick: button.dataset.pick});
});"""
#: `static/page.js` fills a part, as Gradio would empty it before filling it again.
_SHOW = """const place = () => element.querySelector('.cp-place');
const show = () => window.cp.show(place(), props.value, () => trigger('deliver'));
watch('value', show);
show();"""
_HEADER = """<div class="cp-header"><div><h1>captum<span>_</span>pullback</h1>
<p>What does a network look at? In the backward pass each gate is held fixed and softened; the
forward pass is unchanged.</p></div>
<button type="button" class="cp-theme" aria-pressed="false" aria-label="Dark colors"
title="Light or dark" onclick="window.cp.dark()"><svg viewBox="0 0 24 24" aria-hidden="true"><path
d="M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18" fill="none" stroke="currentColor"
stroke-width="1.6"/><path d="M12 3a9 9 0 0 1 0 18z" fill="currentColor"/></svg></button></div>
<p id="cp-announce" class="cp-unseen" role="status"></p>"""
_FIT = """<p class="cp-hint" id="cp-fit-hint">Searches for the temperature whose map best predicts
how the score changes when squares of this photograph are replaced by noise (the lowest infidelity),
among those whose maps tell this class from others.</p>"""
_ASCEND = """<p class="cp-hint">A few steps along the pullback change the photograph so that the
score of the class rises. Classes and temperature apply here, too; step size and radius are
fractions of the photograph's norm.</p>"""
_AGAIN = """<p class="cp-again" role="status"></p>"""
_SHOWS = [("Heat map", "heat_map"), ("Overlay", "blended_heat_map"), ("Colors", "colors")]
_UNITS = [("gate inputs z", "z"), ("their spread", "spread"), ("mean output", "output")]
_RULES = {
    "semantic": "Semantic: every gate (ReLU, GELU, norms, attention)",
    "excitation": "Excitation: ReLU family and max pools only",
}
_WHATS = [("a class", "class"), ("a neuron", "neuron"), ("a class, at a hidden layer", "layer")]


def build(networks: Mapping[str, Loaded], samples: list[Photo]) -> gr.Blocks:
    """Build the page for these networks, of which the first is chosen, and these photographs."""
    do = Actions(networks, samples)
    first = next(iter(networks.values()))
    page = gr.Blocks(title="captum_pullback", analytics_enabled=False, fill_width=True)
    with page:
        gr.HTML(_HEADER)
        with gr.Row(elem_classes="cp-columns"):
            with gr.Column(scale=1, min_width=300, elem_classes="cp-controls"):
                left = _left(do, first)
            with gr.Column(scale=3, min_width=320, elem_classes="cp-results"):
                right = _right()
        hidden = {
            "desk": gr.State(do.desk()),
            "file": gr.DownloadButton(elem_id="cp-file", visible="hidden"),
            "turn": gr.Number(visible="hidden"),
        }
        connect(page, do, left | right | hidden)
    return page


def _left(do: Actions, first: Loaded) -> dict[str, Any]:
    """Build the left column: photograph, predictions, and what is to be explained."""
    parts: dict[str, Any] = {}
    networks, samples = list(do.networks), list(do.samples.values())
    with gr.Column(elem_classes="cp-photo"):
        parts["network"] = gr.Dropdown(
            networks, value=first.name, label="Network", filterable=False,
            visible=len(networks) > 1, elem_id="cp-network",
        )  # fmt: skip
        gr.HTML("<h2>Photograph</h2>")
        parts["picks"] = gr.HTML(samples_card(samples), js_on_load=_PICK)
        parts["upload"] = gr.UploadButton(
            "Upload, drop or paste one", elem_id="cp-upload", size="sm"
        )
    with gr.Column(elem_classes="cp-seen"):
        gr.HTML("<h2>Prediction</h2>")
        parts["predictions"] = gr.HTML(
            html_template=_place_for(waiting_predictions(first)), js_on_load=_PICK + _SHOW,
            elem_id="cp-predictions",
        )  # fmt: skip
    with gr.Column(elem_classes="cp-settings"):
        gr.HTML("<h2>Explain</h2>")
        parts["targets"] = gr.Dropdown(
            class_choices(first), multiselect=True, label="Classes", elem_id="cp-targets"
        )
        with gr.Group(elem_classes="cp-heat"):
            parts["temperature"] = _slider(
                "temperature",
                DEFAULT_TEMPERATURE.scale,
                0.01,
                "Temperature",
                elem_id="cp-temperature",
            )
            parts["fit"] = gr.Button("Fit it", size="sm", elem_id="cp-fit")
        gr.HTML(_FIT)
        with gr.Group(elem_classes="cp-gates"):
            parts["unit"] = gr.Radio(
                _UNITS,
                value=DEFAULT_TEMPERATURE.unit,
                label="Temperature in units of",
                elem_id="cp-unit",
            )
            parts["rules"] = gr.Radio(
                [(_RULES.get(name, name), name) for name in rule_choices(first)],
                value=first.rules, label="Rules: which gates are softened or held",
                elem_id="cp-rules",
            )  # fmt: skip
        with gr.Accordion("Max pooling, neurons and layers", open=False):
            parts["follow"] = gr.Checkbox(
                True, label="Max pooling has the same temperature", elem_id="cp-follow"
            )
            parts["pool"] = _slider(
                "pool", DEFAULT_TEMPERATURE.scale, 0.01, "Pool temperature",
                elem_id="cp-pool",
            )  # fmt: skip
            parts["what"] = gr.Radio(
                _WHATS, value="class", label="What is explained", elem_id="cp-what"
            )
            parts["layer"] = gr.Dropdown(
                layer_choices(first), value=last_layer(first), label="Layer",
                elem_id="cp-layer",
            )  # fmt: skip
            parts["channel"] = gr.Number(
                0, label="Channel", minimum=0, precision=0, elem_id="cp-channel"
            )
            parts["everywhere"] = gr.Checkbox(
                False,
                label="Summed over the picture, not only its most active place",
                elem_id="cp-everywhere",
            )
    return parts


def _right() -> dict[str, Any]:
    """Build the right column: the answers, and how they are computed and drawn."""
    parts: dict[str, Any] = {}
    with gr.Row(elem_classes="cp-status"):
        parts["status"] = _place("cp-status", message_card(0))
        parts["stop"] = gr.Button("Stop", size="sm", elem_id="cp-stop", min_width=60)
    with gr.Tabs():
        with gr.Tab("Explain") as parts["explain_tab"]:
            with gr.Row(elem_classes="cp-bar-row"):
                parts["method"] = gr.Dropdown(
                    [(TITLES[name].title, name) for name in METHODS], value=METHODS[0],
                    label="Method", filterable=False, elem_id="cp-method", min_width=190,
                    container=False,
                )  # fmt: skip
                parts["show"] = gr.Radio(
                    _SHOWS, value="heat_map", label="How maps are drawn", container=False,
                    elem_id="cp-show", show_label=False,
                )  # fmt: skip
                parts["pin"] = gr.Button("Pin to compare", size="sm", elem_id="cp-pin")
            parts["answers"] = _place("cp-answers", waiting_answer())
            parts["answer_files"] = _files("explanation")
            parts["answer_code"] = _code()
        with gr.Tab("Ascend", elem_id="cp-ascend-tab") as parts["ascend_tab"]:
            gr.HTML(_ASCEND)
            with gr.Row(elem_classes="cp-climb"):
                parts["steps"] = _slider("steps", 5, 1, "Steps")
                parts["step_size"] = _slider("step_size", 0.1, 0.01, "Step size")
                parts["radius"] = _slider("radius", 0.5, 0.05, "Radius")
            with gr.Row(elem_classes="cp-bar-row"):
                parts["bounded"] = gr.Checkbox(
                    True, label="Stay between black and white", container=False
                )
                parts["compare"] = gr.Checkbox(
                    False, label="Compare with the plain gradient", container=False
                )
                parts["ascend"] = gr.Button(
                    "Ascend", variant="primary", size="sm", elem_id="cp-ascend"
                )
            gr.HTML(_AGAIN)
            parts["ascents"] = _place("cp-ascents", card(0, ""))
            parts["ascent_files"] = _files("ascent")
            parts["ascent_code"] = _code()
    return parts


def _place(name: str, at_first: str) -> gr.HTML:
    return gr.HTML(html_template=_place_for(at_first), js_on_load=_SHOW, elem_id=name)


def _place_for(at_first: str) -> str:
    return f'<div class="cp-place">{at_first}</div>'


def _slider(name: str, value: float, step: float, label: str, **more: Any) -> gr.Slider:
    low, high, _ = RANGES[name]
    return gr.Slider(low, high, value=value, step=step, label=label, **more)


def _files(name: str) -> dict[str, gr.Button]:
    with gr.Row(elem_classes="cp-files"):
        return {
            kind: gr.Button(label, size="sm", elem_id=f"cp-{name}-{kind}")
            for kind, label in (
                ("png", "Picture"),
                ("npz", "Arrays (.npz)"),
                ("py", "Python (.py)"),
            )
        }


def _code() -> gr.Code:
    with gr.Accordion("The same in Python, bit for bit", open=False):
        return gr.Code(language="python", interactive=False, show_label=False, wrap_lines=False)
