"""Answers as HTML: pictures in tiles, with the figures under them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from torch import Tensor

from captum_pullback.app.climbing import Ascended
from captum_pullback.app.keep import explained, method_title
from captum_pullback.app.pictures import (
    data_uri,
    map_picture,
    perturbation_picture,
    photograph,
    thumbnail,
)
from captum_pullback.app.question import Loaded, Photo
from captum_pullback.app.work import Explanation, Seen
from captum_pullback.figures.ascents import number
from captum_pullback.figures.panels import Method
from captum_pullback.study.report import class_name, duration, percent
from captum_pullback.study.scores import SCORES

__all__ = ["answers_card", "ascent_card", "predictions_card", "progress_card", "samples_card"]

_KEY = '<p class="cp-key" aria-hidden="true"><span>against</span><i></i><span>for</span></p>'


def samples_card(photos: Sequence[Photo]) -> str:
    """Photographs to click on."""
    buttons = [
        f'<button type="button" data-pick="{escape(photo.name)}" title="{_plain(photo.name)}" '
        f'aria-label="Explain the sample photograph {_plain(photo.name)}">'
        f'<img alt="" src="{data_uri(thumbnail(photo.load()), "JPEG")}"></button>'
        for photo in photos
    ]
    return f'<div class="cp-samples">{"".join(buttons)}</div>'


def predictions_card(loaded: Loaded, seen: Seen, count: int = 5) -> str:
    """The most probable classes, to click on."""
    top = seen.probabilities.topk(min(count, len(seen.probabilities)))
    rows = []
    for index, probability in zip(top.indices.tolist(), top.values, strict=True):
        name = escape(class_name(loaded.network, index))
        rows.append(
            f'<li><button type="button" data-pick="{index}" title="Explain {name}">'
            f'<span class="cp-bar" style="width:{100 * float(probability):.1f}%"></span>'
            f"<span>{name}</span><b>{percent(probability)}</b>"
            f'<small title="score">{number(seen.logits[index])}</small></button></li>'
        )
    return f'<ol class="cp-predictions">{"".join(rows)}</ol>'


def answers_card(
    answers: Sequence[tuple[Loaded, Explanation]], method: Method, pending: bool = False
) -> str:
    """Explanations side by side; ``pending``: the scores that they lack are still to come."""
    parts = [
        _answer(loaded, answer, method, pending and not answer.rated) for loaded, answer in answers
    ]
    kind = "cp-screen cp-two" if len(parts) > 1 else "cp-screen"
    about = f'<p class="cp-about">{escape(SCORES[0].upper() + SCORES[1:])}.</p>'
    return f'<div class="{kind}">{"".join(parts)}</div>{about}'


def ascent_card(loaded: Loaded, result: Ascended) -> str:
    """Ascents: before and after, the perturbation, and the score over the steps."""
    network, image = loaded.network, result.seen.inputs[0].cpu()
    before = data_uri(photograph(network, image))
    parts = []
    for title, ends in result.ends.items():
        blocks = []
        for i, name in enumerate(explained(loaded, result)):
            after = data_uri(photograph(network, ends[i]))
            moved, scale = perturbation_picture(network, ends[i] - image)
            blocks.append(
                f'<div class="cp-tiles">{_compare(before, after, name)}'
                + _tile(
                    data_uri(moved),
                    f"The perturbation towards {name}",
                    "Perturbation",
                    f"<p>full colour: \N{PLUS-MINUS SIGN}{scale:.2g} of the pixels' range</p>",
                    "cp-exact",
                )
                + _curve(loaded, result, title, i)
                + "</div>"
            )
        steps = f"{result.climb.steps} step{'s' * (result.climb.steps > 1)}"
        about = f"{loaded.name} \N{MIDDLE DOT} {result.seen.photo.name} \N{MIDDLE DOT} {steps}"
        parts.append(_section(title, about, "".join(blocks)))
    return f'<div class="cp-screen">{"".join(parts)}</div>'


def progress_card(share: float, label: str) -> str:
    """A bar."""
    return (
        f'<div class="cp-progress" role="status"><span>{escape(label)}</span>'
        f'<progress max="1" value="{share:.3f}"></progress><b>{share:.0%}</b></div>'
    )


def _answer(loaded: Loaded, answer: Explanation, method: Method, pending: bool) -> str:
    network, seen, question = loaded.network, answer.seen, answer.question
    inputs = seen.inputs[0].cpu()
    size = f"{inputs.shape[2]} \N{MULTIPLICATION SIGN} {inputs.shape[1]}"
    tiles = [
        _tile(
            data_uri(photograph(network, inputs)),
            f"{seen.photo.name}, as the network sees it",
            "Photograph",
            f"<p>as the network sees it, {size}</p>",
        )
    ]
    exact = "" if method == "blended_heat_map" else "cp-exact"
    for i, (name, scored) in enumerate(zip(explained(loaded, answer), answer.maps, strict=True)):
        picture = map_picture(network, inputs, scored.attribution, method)
        if question.what == "neuron":
            score = f"<dt>activation</dt><dd>{number(answer.activation)}</dd>"
        else:
            target = question.targets[i]
            chance = percent(seen.probabilities[target])
            score = f"<dt>score</dt><dd>{number(seen.logits[target])}<small>{chance}</small></dd>"
        figures = (
            f'<dl class="cp-figures"><div>{score}</div>'
            f"{_figure('infidelity', scored.infidelity, pending)}"
            f"{_figure('sensitivity', scored.sensitivity, pending)}"
            f"<div><dt>time</dt><dd>{duration(scored.seconds)}</dd></div></dl>"
        )
        alt = f"{method_title(answer)} of {name}"
        tiles.append(_tile(data_uri(picture), alt, name, figures, exact))
    about = f"{loaded.name} \N{MIDDLE DOT} {seen.photo.name}"
    key = "" if method == "colors" else _KEY
    body = f'<div class="cp-tiles">{"".join(tiles)}</div>{key}{_coverage(answer)}'
    return _section(method_title(answer), about, body)


def _section(title: str, about: str, body: str) -> str:
    return (
        f'<section class="cp-answer"><header><h3>{escape(title)}</h3><p>{escape(about)}</p>'
        f"</header>{body}</section>"
    )


def _tile(source: str, alt: str, title: str, body: str, kind: str = "") -> str:
    return (
        f'<figure class="cp-tile"><img class="{kind}" src="{source}" alt="{escape(alt)}">'
        f'<figcaption><h4 title="{escape(title)}">{escape(title)}</h4>{body}</figcaption></figure>'
    )


def _figure(name: str, value: float, pending: bool) -> str:
    if math.isnan(value):
        text = '<span class="cp-wait" aria-label="being computed"></span>' if pending else "\u2013"
    else:
        text = f"{value:.3g}"
    return f"<div><dt>{name}</dt><dd>{text}</dd></div>"


def _coverage(answer: Explanation) -> str:
    if not answer.record:
        return ""
    soft, hard = answer.counts
    text = f"{soft} gate calls softened, {hard or 'none'} left hard"
    return (
        f'<details class="cp-coverage"><summary>Coverage: {text}</summary>'
        f"<pre>{escape(answer.record)}</pre></details>"
    )


def _compare(before: str, after: str, name: str) -> str:
    """The photograph and where the ascent ended, under a slider."""
    return (
        '<figure class="cp-tile"><div class="cp-compare" style="--cut:50%">'
        f'<img src="{after}" alt="After the ascent towards {escape(name)}">'
        f'<img class="cp-before" src="{before}" alt="Before"><i></i>'
        '<input type="range" min="0" max="100" value="50" aria-label="Before and after" '
        "oninput=\"this.parentNode.style.setProperty('--cut', this.value + '%')\">"
        "<span>before</span><span>after</span></div>"
        f"<figcaption><h4>{escape(name)}</h4><p>drag to compare</p></figcaption></figure>"
    )


def _curve(loaded: Loaded, result: Ascended, title: str, i: int) -> str:
    """The target's score over the steps, as a line."""
    scores = result.scores[title][i]
    after = result.probabilities[title][i]
    if result.question.what == "neuron":
        chances = ""
    else:
        target = result.question.targets[i]
        chances = (
            f"<p>probability {percent(result.seen.probabilities[target])} \N{RIGHTWARDS ARROW} "
            f"{percent(after[target])}</p>"
        )
    best = int(after.argmax())
    return (
        f'<figure class="cp-tile"><div class="cp-curve">{_line(scores)}</div><figcaption>'
        f"<h4>{number(scores[0])} \N{RIGHTWARDS ARROW} {number(scores[-1])}</h4>"
        f"<p>score, step by step</p>{chances}"
        f"<p>now predicted: {escape(class_name(loaded.network, best))} {percent(after[best])}</p>"
        "</figcaption></figure>"
    )


def _line(scores: Tensor) -> str:
    low, high = float(scores.min()), float(scores.max())
    span, last = (high - low) or 1.0, max(len(scores) - 1, 1)
    points = [
        (8 + 84 * k / last, 86 - 72 * (float(score) - low) / span) for k, score in enumerate(scores)
    ]
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.6"/>' for x, y in points)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return (
        '<svg viewBox="0 0 100 100" role="img" aria-label="The score over the steps">'
        '<line x1="8" y1="92" x2="92" y2="92"/>'
        f'<polyline points="{path}"/>{dots}</svg>'
    )


def _plain(name: str) -> str:
    return escape(name.replace("_", " "))
