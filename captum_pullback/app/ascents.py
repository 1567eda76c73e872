"""Ascents as HTML: before and after under a slider, the perturbation, and a curve of the score."""

from __future__ import annotations

import math
from html import escape

import torch
from torch import Tensor

from captum_pullback.app.cards import section, tile
from captum_pullback.app.climbing import Ascended
from captum_pullback.app.keep import explained
from captum_pullback.app.pictures import data_uri, perturbation_picture, photograph
from captum_pullback.app.question import Loaded
from captum_pullback.figures.ascents import number
from captum_pullback.study.report import class_name, percent

__all__ = ["ascent_card", "line_chart", "ticks"]


def ascent_card(loaded: Loaded, result: Ascended) -> str:
    """Return the card of ascents: before and after, perturbation, and scores over the steps."""
    network, image = loaded.network, result.seen.inputs[0].cpu()
    before = data_uri(photograph(network, image))
    parts = []
    for title, ends in result.ends.items():
        blocks = []
        for i, name in enumerate(explained(loaded, result)):
            # The charts of one target share a scale, so that they can be compared.
            scores = torch.cat([way[i] for way in result.scores.values()])
            after = data_uri(photograph(network, ends[i]))
            moved, scale = perturbation_picture(network, ends[i] - image)
            blocks.append(
                f'<div class="cp-tiles">{_compare(before, after, name)}'
                + tile(
                    data_uri(moved),
                    f"The perturbation toward {name}",
                    "Perturbation",
                    f"<p>full color: \N{PLUS-MINUS SIGN}{scale:.2g} of the pixels' range</p>",
                    "cp-exact",
                )
                + _curve(loaded, result, title, i, scores)
                + "</div>"
            )
        steps = f"{result.climb.steps} step{'s' * (result.climb.steps > 1)}"
        about = f"{loaded.name} \N{MIDDLE DOT} {result.seen.photo.name} \N{MIDDLE DOT} {steps}"
        parts.append(section(title, about, "".join(blocks)))
    return f'<div class="cp-screen">{"".join(parts)}</div>'


def _compare(before: str, after: str, name: str) -> str:
    """Return the photograph before and after the ascent, under a slider."""
    return (
        '<figure class="cp-tile"><div class="cp-compare" style="--cut:50%">'
        f'<img class="cp-exact" src="{after}" alt="After the ascent toward {escape(name)}">'
        f'<img class="cp-before cp-exact" src="{before}" alt="Before"><i></i>'
        '<input type="range" min="0" max="100" value="50" aria-label="Before and after" '
        "oninput=\"this.parentNode.style.setProperty('--cut', this.value + '%')\">"
        "<span>before</span><span>after</span></div>"
        f'<figcaption><h4 title="{escape(name)}">{escape(name)}</h4>'
        "<p>drag to compare</p></figcaption></figure>"
    )


def _curve(loaded: Loaded, result: Ascended, title: str, i: int, all_scores: Tensor) -> str:
    """Return the target's score over the steps, as a line chart."""
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
        f'<figure class="cp-tile"><div class="cp-curve">{line_chart(scores, all_scores)}</div>'
        "<figcaption>"
        f"<h4>{number(scores[0])} \N{RIGHTWARDS ARROW} {number(scores[-1])}</h4>"
        f"<p>score, step by step</p>{chances}"
        f"<p>now predicted: {escape(class_name(loaded.network, best))} {percent(after[best])}</p>"
        "</figcaption></figure>"
    )


def line_chart(scores: Tensor, scale: Tensor) -> str:
    """Return an SVG of scores over steps, whose axis covers all values of ``scale``."""
    marks = ticks(float(scale.min()), float(scale.max()))
    low, high, last = marks[0], marks[-1], max(len(scores) - 1, 1)

    def x_of(step: float) -> float:
        return 18 + 76 * step / last

    def y_of(score: float) -> float:
        return 84 - 74 * (score - low) / (high - low)

    parts = []
    for mark in marks:
        y, text = y_of(mark), f"{round(mark, 9):.4g}".replace("-", "\N{MINUS SIGN}")
        parts.append(f'<line x1="18" y1="{y:.1f}" x2="94" y2="{y:.1f}"/>')
        parts.append(f'<text x="16" y="{y + 2:.1f}" text-anchor="end">{text}</text>')
    every = math.ceil(last / 5)
    for step in range(0, last + 1, every):
        parts.append(f'<text x="{x_of(step):.1f}" y="91.5" text-anchor="middle">{step}</text>')
    parts.append('<text x="56" y="98.5" text-anchor="middle">step</text>')
    parts.append('<text x="2" y="6">score</text>')
    points = [(x_of(step), y_of(float(score))) for step, score in enumerate(scores)]
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.6"/>' for x, y in points)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    about = f"The score over the steps: from {number(scores[0])} to {number(scores[-1])}"
    return (
        f'<svg viewBox="0 0 100 100" role="img" aria-label="{about}">{"".join(parts)}'
        f'<polyline points="{path}"/>{dots}</svg>'
    )


def ticks(low: float, high: float) -> list[float]:
    """Return three to six round numbers, equally spaced, that enclose both ends."""
    span = (high - low) or abs(high) or 1.0
    size = 10 ** math.floor(math.log10(span / 4))
    step = next(size * k for k in (1, 2, 2.5, 5, 10) if span / (size * k) <= 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * k for k in range(first, max(last, first + 1) + 1)]
