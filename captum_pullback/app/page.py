"""The page: its controls, and what happens when they are moved. What is shown is in `cards`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from captum_pullback.app.actions import Actions
from captum_pullback.app.cards import samples_card
from captum_pullback.app.question import METHODS, Loaded, Photo
from captum_pullback.study.methods import METHODS as TITLES

__all__ = ["build"]

_PICK = """element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-pick]');
  if (button) trigger('click', {pick: button.dataset.pick});
});"""
_HEADER = """<div class="cp-header"><div><h1>captum<span>_</span>pullback</h1>
<p>What does a ReLU network look at? The backward gate <code>1[z &gt; 0]</code> becomes
<code>sigmoid(z / T)</code>; the forward pass stays as it is.</p></div>
<button type="button" class="cp-theme" aria-label="Light or dark" title="Light or dark"
onclick="document.body.classList.toggle('dark')"><svg viewBox="0 0 24 24" aria-hidden="true"><path
d="M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18" fill="none" stroke="currentColor"
stroke-width="1.6"/><path d="M12 3a9 9 0 0 1 0 18z" fill="currentColor"/></svg></button></div>"""
_SHOWS = [("Heat map", "heat_map"), ("Overlay", "blended_heat_map"), ("Colours", "colors")]
_WHATS = [("a class", "class"), ("a neuron", "neuron"), ("a class, at a layer", "layer")]
#: Numbers what is asked for, in the order in which it is asked: requests overtake each other.
_TURN = "(...given) => [...given.slice(0, -1), window.cpTurn = (window.cpTurn || 0) + 1]"
_CLICK = "() => document.querySelector('#cp-file').click()"


def build(networks: Mapping[str, Loaded], samples: list[Photo]) -> gr.Blocks:
    """The page for these networks, of which the first is chosen, and these photographs."""
    do = Actions(networks, samples)
    first = next(iter(networks.values()))
    page = gr.Blocks(title="captum_pullback", analytics_enabled=False, fill_width=True)
    with page:
        seen, answer, pinned, ascent = (gr.State() for _ in range(4))
        gr.HTML(_HEADER)
        with gr.Row(elem_classes="cp-columns"):
            with gr.Column(scale=1, min_width=300, elem_classes="cp-controls"):
                with gr.Column(elem_classes="cp-photo"):
                    network = gr.Dropdown(
                        list(networks), value=first.name, label="Network", filterable=False,
                        visible=len(networks) > 1, elem_id="cp-network",
                    )  # fmt: skip
                    gr.HTML("<h2>Photograph</h2>")
                    picks = gr.HTML(samples_card(samples), js_on_load=_PICK)
                    upload = gr.UploadButton(
                        "Upload, drop or paste one", elem_id="cp-upload", size="sm"
                    )
                    gr.HTML("<h2>Prediction</h2>")
                    predictions = gr.HTML(js_on_load=_PICK, elem_id="cp-predictions")
                with gr.Column(elem_classes="cp-settings"):
                    gr.HTML("<h2>Explain</h2>")
                    targets = gr.Dropdown(
                        do.choices(first), multiselect=True, label="Classes", elem_id="cp-targets"
                    )
                    method = gr.Dropdown(
                        [(TITLES[name].title, name) for name in METHODS],
                        value=METHODS[0], label="Method", filterable=False, elem_id="cp-method",
                    )  # fmt: skip
                    with gr.Group() as heat:
                        temperature = gr.Slider(
                            0, 5, value=first.temperature, step=0.01, label="Temperature",
                            elem_id="cp-temperature",
                        )  # fmt: skip
                        fit = gr.Button("Fit it", size="sm", elem_id="cp-fit")
                    with gr.Accordion("Max pooling, neurons and layers", open=False):
                        follow = gr.Checkbox(True, label="Max pooling has the same temperature")
                        pool = gr.Slider(
                            0, 5, value=first.temperature, step=0.01, label="Pool temperature",
                            visible=False, elem_id="cp-pool",
                        )  # fmt: skip
                        what = gr.Radio(_WHATS, value="class", label="What is explained")
                        layer = gr.Dropdown(
                            do.layer_choices(first), value=do.last_layer(first), label="Layer",
                            visible=False, elem_id="cp-layer",
                        )  # fmt: skip
                        channel = gr.Number(
                            0, label="Channel", minimum=0, precision=0, visible=False
                        )
                        everywhere = gr.Checkbox(
                            False, label="Summed over the picture, not its most active place",
                            visible=False,
                        )  # fmt: skip
            with gr.Column(scale=3, min_width=320, elem_classes="cp-results"):
                with gr.Row(elem_classes="cp-status"):
                    status = gr.HTML(elem_id="cp-status")
                    stop = gr.Button("Stop", size="sm", elem_id="cp-stop", min_width=60)
                with gr.Tabs():
                    with gr.Tab("Explain"):
                        with gr.Row(elem_classes="cp-bar-row"):
                            show = gr.Radio(
                                _SHOWS, value="heat_map", show_label=False, container=False,
                                elem_id="cp-show",
                            )  # fmt: skip
                            pin = gr.Button("Pin to compare", size="sm", elem_id="cp-pin")
                        answers = gr.HTML(elem_id="cp-answers")
                        answer_files = _files("explanation")
                        answer_code = _code()
                    with gr.Tab("Ascend", elem_id="cp-ascend-tab"):
                        gr.Markdown(
                            "A few steps along the pullback draw on the photograph what the "
                            "class asks for."
                        )
                        with gr.Row(elem_classes="cp-climb"):
                            steps = gr.Slider(1, 20, value=5, step=1, label="Steps")
                            size = gr.Slider(
                                0.01, 0.5, value=0.1, step=0.01,
                                label="Step size, of the norm",
                            )  # fmt: skip
                            radius = gr.Slider(
                                0.05, 2, value=0.5, step=0.05,
                                label="Radius, of the norm",
                            )  # fmt: skip
                        with gr.Row(elem_classes="cp-bar-row"):
                            bounded = gr.Checkbox(
                                True, label="Stay between black and white", container=False
                            )
                            compare = gr.Checkbox(
                                False, label="Plain gradient besides", container=False
                            )
                            climb = gr.Button(
                                "Ascend", variant="primary", size="sm", elem_id="cp-ascend"
                            )
                        ascents = gr.HTML(elem_id="cp-ascents")
                        ascent_files = _files("ascent")
                        ascent_code = _code()
        file = gr.DownloadButton(elem_id="cp-file", visible="hidden")
        turn = gr.Number(visible="hidden")

        settings: list[Any] = [
            seen, what, targets, method, temperature, follow, pool, layer, channel, everywhere,
        ]  # fmt: skip
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        parts = {
            "seen": seen, "answer": answer, "pinned": pinned, "ascent": ascent,
            "predictions": predictions, "targets": targets, "layer": layer, "status": status,
            "answers": answers, "answer_code": answer_code, "ascents": ascents,
            "ascent_code": ascent_code, "temperature": temperature,
        }  # fmt: skip
        do.parts = parts
        looked = [seen, predictions, targets, status]
        asked = [*settings, show, answer, pinned, turn]
        explained = [answers, answer, pinned, answer_code, status]

        def explains(event: Any) -> None:
            event.success(do.explain, asked, explained, js=_TURN, **quiet)

        explains(page.load(do.look_first, [network], looked, **quiet))
        explains(picks.click(do.look_at_sample, [network], looked, **quiet))
        explains(upload.upload(do.look_at_file, [upload, network], looked, **quiet))
        explains(
            network.input(
                do.change_network, [seen, network], [*looked, layer, temperature], **quiet
            )
        )
        explains(predictions.click(do.pick_class, None, targets, **quiet))
        fits = fit.click(do.fit, [*settings, turn], [temperature, status], js=_TURN, **quiet)
        explains(fits)
        moved = [
            targets.input, method.input, temperature.input, temperature.release, follow.input,
            pool.input, pool.release, what.input, layer.input, channel.input, everywhere.input,
            show.select,
        ]  # fmt: skip
        gr.on(
            moved, do.explain, asked, explained, js=_TURN, trigger_mode="multiple",
            concurrency_limit=8, **quiet,
        )  # fmt: skip
        gr.on(
            [method.change, follow.change, what.change],
            do.show_controls,
            [method, follow, what],
            [heat, pool, targets, layer, channel, everywhere],
            queue=False,
            **quiet,
        )
        explains(pin.click(do.pin, [answer, pinned], [pinned, pin], **quiet))
        stop.click(do.stop, [answer, pinned, show], [answers, status], queue=False, **quiet)
        gr.on(
            [
                climb.click,
                steps.release,
                size.release,
                radius.release,
                bounded.input,
                compare.input,
            ],
            do.ascend,
            [*settings, steps, size, radius, bounded, compare, turn],
            [ascents, ascent, ascent_code, status],
            js=_TURN,
            trigger_mode="multiple",
            concurrency_limit=8,
            **quiet,
        )
        for kind, button in answer_files.items():
            button.click(do.keep(kind), [answer, pinned, show], file, **quiet).success(
                None, js=_CLICK, **quiet
            )
        for kind, button in ascent_files.items():
            button.click(do.keep_ascent(kind), [ascent], file, **quiet).success(
                None, js=_CLICK, **quiet
            )
        page.unload(do.leave)
    return page


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
    with gr.Accordion("The same in Python, to the bit", open=False):
        return gr.Code(language="python", interactive=False, show_label=False, wrap_lines=False)
