"""Answers as HTML: pictures in tiles, with figures below them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from torch import Tensor

from captum_pullback.app.keep import explained, method_title
from captum_pullback.app.pictures import data_uri, map_picture, photograph, thumbnail
from captum_pullback.app.question import Loaded, Photo
from captum_pullback.app.work import Explanation, Seen
from captum_pullback.figures.ascents import number
from captum_pullback.figures.panels import Method
from captum_pullback.study.report import class_name, duration, percent
from captum_pullback.study.scores import SCORES

__all__ = [
    "answers_card",
    "card",
    "failure_card",
    "message_card",
    "predictions_card",
    "progress_card",
    "samples_card",
    "section",
    "tile",
    "waiting_answer",
    "waiting_predictions",
]

_KEY = '<p class="cp-key" aria-hidden="true"><span>against</span><i></i><span>for</span></p>'
#: Shown for methods that soften nothing, so that the layout does not move.
_COVERAGE = '<p class="cp-coverage">Coverage: this method softens no gates</p>'
_ABOUT = (
    "Score: the network's output for the class, before the softmax (its logit). "
    f"{SCORES[0].upper()}{SCORES[1:]}."
)
_TOP = 5
_SERIAL = itertools.count(1)


def card(turn: int, body: str, controls: Mapping[str, Any] | None = None) -> str:
    """Wrap HTML that replaces a part of the page, unless that part shows something newer.

    Until it arrives the page dims what it shows: see `static/page.js`. Of two cards of the same
    turn the one that was made later counts, in whatever order they arrive.

    Args:
        turn: The last turn that the answer takes into account.
        body: The HTML.
        controls: Values of controls, by name, which the page sets together with it.
    """
    given = f' data-set="{escape(json.dumps(controls))}"' if controls else ""
    return (
        f'<div class="cp-card" data-turn="{turn}" data-serial="{next(_SERIAL)}"{given}>{body}</div>'
    )


def samples_card(photos: Sequence[Photo]) -> str:
    """Return buttons with the sample photographs."""
    buttons = [
        f'<button type="button" data-pick="{escape(photo.name)}" title="{_plain(photo.name)}" '
        f'aria-label="Explain the sample photograph {_plain(photo.name)}">'
        f'<img alt="" src="{data_uri(thumbnail(photo.load()), "JPEG")}"></button>'
        for photo in photos
    ]
    return f'<div class="cp-samples">{"".join(buttons)}</div>'


def predictions_card(turn: int, loaded: Loaded, seen: Seen) -> str:
    """Return buttons with the most probable classes."""
    top = seen.probabilities.topk(min(_TOP, len(seen.probabilities)))
    rows = []
    for index, probability in zip(top.indices.tolist(), top.values, strict=True):
        name = escape(class_name(loaded.network, index))
        score, chance = number(seen.logits[index]), percent(probability)
        rows.append(
            f'<li><button type="button" data-pick="{index}" title="Explain {name}" '
            f'aria-label="Explain {name}: probability {chance}, score {score}">'
            f'<span class="cp-bar" style="width:{100 * float(probability):.1f}%"></span>'
            f"<span>{name}</span><b>{chance}</b><small>{score}</small></button></li>"
        )
    return card(turn, _predictions(rows))


def waiting_predictions(loaded: Loaded) -> str:
    """Return a placeholder for the first predictions."""
    row = (
        '<li><button type="button" disabled><span>\u2026</span><b></b><small></small></button></li>'
    )
    return card(0, _predictions([row] * min(_TOP, loaded.outputs)))


def _predictions(rows: list[str]) -> str:
    return (
        '<p class="cp-columns-head" aria-hidden="true"><span>class</span><b>probability</b>'
        '<small title="the network\'s output for the class, before the softmax: its logit">'
        f'score</small></p><ol class="cp-predictions">{"".join(rows)}</ol>'
    )


def answers_card(
    turn: int,
    answers: Sequence[tuple[Loaded, Explanation]],
    method: Method,
    pending: bool = False,
    controls: Mapping[str, Any] | None = None,
) -> str:
    """Return explanations side by side; with ``pending``, missing scores are still to come."""
    parts = [
        _answer(loaded, answer, method, pending and not answer.rated) for loaded, answer in answers
    ]
    return card(turn, _screen(parts), controls)


def failure_card(turn: int, loaded: Loaded, seen: Seen, why: str) -> str:
    """Return a photograph that has no explanation, with the reason in its place."""
    inputs = seen.inputs[0].cpu()
    none = f'<p class="cp-none"><b>No explanation.</b> {escape(why)}</p>'
    tiles = _photograph(loaded, inputs, seen.photo.name, "cp-exact") + none
    body = f'<div class="cp-tiles">{tiles}</div>{_KEY}{_COVERAGE}'
    return card(turn, _screen([section("No explanation", _about(loaded, seen), body)]))


def waiting_answer() -> str:
    """Return a placeholder for the first answer, so that nothing moves when it comes."""
    blank = '<div class="cp-blank"></div>'
    photo = (
        f'<figure class="cp-tile">{blank}<figcaption><h4>\u2026</h4><p>\u2026</p></figcaption>'
        "</figure>"
    )
    rows = "".join(
        f"<div><dt>{name}</dt><dd>\u2026</dd></div>"
        for name in ("score", "probability", "infidelity", "sensitivity", "time")
    )
    other = (
        f'<figure class="cp-tile">{blank}<figcaption><h4>\u2026</h4>'
        f'<dl class="cp-figures">{rows}</dl></figcaption></figure>'
    )
    body = f'<div class="cp-tiles">{photo}{other}</div>{_KEY}{_COVERAGE}'
    return card(0, _screen([section("\u2026", "\u2026", body)]))


def message_card(turn: int, text: str = "", controls: Mapping[str, Any] | None = None) -> str:
    """Return a line of text in place of the progress bar."""
    return card(turn, f'<p class="cp-message">{escape(text)}</p>', controls)


def _screen(parts: Sequence[str]) -> str:
    kind = "cp-screen cp-two" if len(parts) > 1 else "cp-screen"
    about = f'<p class="cp-about">{escape(_ABOUT)}</p>'
    return f'<div class="{kind}">{"".join(parts)}</div>{about}'


def progress_card(turn: int, share: float, label: str) -> str:
    """Return a progress bar."""
    text = escape(label)
    return card(
        turn,
        f'<div class="cp-progress"><span>{text}</span><progress max="1" value="{share:.3f}" '
        f'aria-label="{text}"></progress><b>{share:.0%}</b></div>',
    )


def _answer(loaded: Loaded, answer: Explanation, method: Method, pending: bool) -> str:
    network, seen, question = loaded.network, answer.seen, answer.question
    inputs = seen.inputs[0].cpu()
    # Photograph and map are drawn alike: both pixel by pixel, or both enlarged smoothly.
    exact = "" if method == "blended_heat_map" else "cp-exact"
    tiles = [_photograph(loaded, inputs, seen.photo.name, exact)]
    for i, (name, scored) in enumerate(zip(explained(loaded, answer), answer.maps, strict=True)):
        picture = map_picture(network, inputs, scored.attribution, method)
        if question.what == "neuron":
            score = f"<div><dt>activation</dt><dd>{number(answer.activation)}</dd></div>"
        else:
            target = question.targets[i]
            score = (
                f"<div><dt>score</dt><dd>{number(seen.logits[target])}</dd></div><div>"
                f"<dt>probability</dt><dd>{percent(seen.probabilities[target])}</dd></div>"
            )
        figures = (
            f'<dl class="cp-figures">{score}'
            f"{_figure('infidelity', scored.infidelity, pending)}"
            f"{_figure('sensitivity', scored.sensitivity, pending)}"
            f"<div><dt>time</dt><dd>{duration(scored.seconds)}</dd></div></dl>"
        )
        alt = f"{method_title(answer)} of {name}"
        tiles.append(tile(data_uri(picture), alt, name, figures, exact))
    key = _KEY.replace("cp-key", "cp-key cp-none-of-it") if method == "colors" else _KEY
    body = f'<div class="cp-tiles">{"".join(tiles)}</div>{key}{_coverage(answer)}'
    return section(method_title(answer), _about(loaded, seen), body)


def _about(loaded: Loaded, seen: Seen) -> str:
    return f"{loaded.name} \N{MIDDLE DOT} {seen.photo.name}"


def _photograph(loaded: Loaded, inputs: Tensor, name: str, kind: str) -> str:
    size = f"{inputs.shape[2]} \N{MULTIPLICATION SIGN} {inputs.shape[1]}"
    return tile(
        data_uri(photograph(loaded.network, inputs)), f"{name}, as the network sees it",
        "Photograph", f"<p>as the network sees it, {size}</p>", kind,
    )  # fmt: skip


def section(title: str, about: str, body: str) -> str:
    """Return one of the answers that stand side by side."""
    return (
        f'<section class="cp-answer"><header><h3>{escape(title)}</h3><p title="{escape(about)}">'
        f"{escape(about)}</p>"
        f"</header>{body}</section>"
    )


def tile(source: str, alt: str, title: str, body: str, kind: str = "") -> str:
    """Return a picture with its caption."""
    return (
        f'<figure class="cp-tile"><img class="{kind}" src="{source}" alt="{escape(alt)}">'
        f'<figcaption><h4 title="{escape(title)}">{escape(title)}</h4>{body}</figcaption></figure>'
    )


def _figure(name: str, value: float, pending: bool) -> str:
    if math.isnan(value):
        text = (
            '<span class="cp-wait" role="img" aria-label="being computed"></span>'
            if pending
            else "\u2013"
        )
    else:
        text = f"{value:.3g}"
    return f"<div><dt>{name}</dt><dd>{text}</dd></div>"


def _coverage(answer: Explanation) -> str:
    if not answer.record:
        return _COVERAGE
    soft, held, hard = answer.counts
    text = f"{soft} gate call{'s' * (soft != 1)} softened, {held} held, {hard} left hard"
    return (
        f'<details class="cp-coverage"><summary>Coverage: {text}</summary>'
        f'<pre tabindex="0">{escape(answer.record)}</pre></details>'
    )


def _plain(name: str) -> str:
    return escape(name.replace("_", " "))
