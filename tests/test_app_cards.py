"""What the cards of the app say: figures with their names, axes that compare, nothing unescaped."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape

import pytest
import torch
from torch import nn

from captum_pullback.app import ascents, cards, climbing, hidden, work
from captum_pullback.app.jobs import Job
from captum_pullback.app.question import Loaded, Photo, Question
from captum_pullback.study.ascents import Climb
from captum_pullback.zoo.networks import Network, preprocessing

GRACE = Photo("grace_hopper")


@pytest.fixture
def loaded() -> Loaded:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 3)
        )
    classes = ("one", "<b>two", "a long name " * 20)
    network = Network(model.eval(), classes, preprocessing(16), input_size=16)
    layers = hidden.layers(network)
    (outputs,) = layers.pop("")
    return Loaded(network, "mine", layers=layers, outputs=outputs)


def answered(loaded: Loaded, **settings: object) -> work.Explanation:
    seen = work.look(loaded, GRACE)
    question = replace(Question("mine", GRACE, targets=(1,)), **settings)  # type: ignore[arg-type]
    return work.explain(loaded, seen, question, Job(lambda job: None))


def terms(html: str) -> dict[str, str]:
    """The figures under a map."""
    pairs = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", html)
    return {name: unescape(value) for name, value in pairs}


def test_a_card_says_its_turn_and_what_it_sets() -> None:
    html = cards.card(7, "<p>body</p>", {"targets": [1], "pin": 'a "name" & more'})
    assert 'data-turn="7"' in html
    found = re.search(r'data-set="(.*?)"', html)
    assert found
    assert json.loads(unescape(found[1])) == {"targets": [1], "pin": 'a "name" & more'}


def test_score_and_probability_are_figures_of_their_own(loaded: Loaded) -> None:
    answer = answered(loaded)
    shown = terms(cards.answers_card(1, [(loaded, answer)], "heat_map"))
    assert list(shown) == ["score", "probability", "infidelity", "sensitivity", "time"]
    logit, chance = answer.seen.logits[1], answer.seen.logits.softmax(0)[1]
    assert shown["score"] == f"{logit:.1f}".replace("-", "\u2212")
    assert shown["probability"] == f"{100 * chance:.1f} %"
    html = cards.predictions_card(1, loaded, answer.seen)
    assert f"probability {shown['probability']}, score {shown['score']}" in html
    assert "its logit" in html


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ((1, 0, 0), "1 gate call softened, 0 held, 0 left hard"),
        ((12, 3, 0), "12 gate calls softened, 3 held, 0 left hard"),
        ((0, 0, 1), "0 gate calls softened, 0 held, 1 left hard"),
    ],
)
def test_coverage_counts_each_kind_of_gate_call(
    loaded: Loaded, counts: tuple[int, int, int], text: str
) -> None:
    answer = replace(answered(loaded), counts=counts)
    assert f"Coverage: {text}<" in cards.answers_card(1, [(loaded, answer)], "heat_map")


def test_held_gates_are_counted(loaded: Loaded) -> None:
    """Both GroupNorms are held; the ReLU is softened, or left hard at temperature 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.GroupNorm(4, 4), nn.Flatten(),
            nn.Linear(4 * 14 * 14, 3),
        )  # fmt: skip
    network = replace(loaded.network, model=model.eval())
    other = replace(loaded, network=network, layers=hidden.layers(network))
    assert answered(other).counts == (1, 2, 0)
    assert answered(other, temperature=0.0).counts == (0, 2, 1)
    assert answered(other, method="saliency").counts == (0, 0, 0)


def test_what_softens_nothing_takes_the_same_room(loaded: Loaded) -> None:
    plain = answered(loaded, method="saliency")
    html = cards.answers_card(1, [(loaded, plain)], "heat_map")
    assert "this method softens no gates" in html
    colors = cards.answers_card(1, [(loaded, plain)], "colors")
    assert "cp-none-of-it" in colors, "the key has no meaning there, and keeps its place"


@pytest.mark.parametrize(
    ("method", "sharp"), [("heat_map", 2), ("colors", 2), ("blended_heat_map", 0)]
)
def test_photograph_and_map_are_equally_sharp(loaded: Loaded, method: str, sharp: int) -> None:
    html = cards.answers_card(1, [(loaded, answered(loaded))], method)  # type: ignore[arg-type]
    assert html.count('<img class="cp-exact"') == sharp
    assert html.count("<img ") == 2


def test_names_are_escaped_and_can_be_read_in_full(loaded: Loaded) -> None:
    answer = answered(loaded, targets=(1, 2))
    html = cards.answers_card(1, [(loaded, answer)], "heat_map")
    html += cards.predictions_card(1, loaded, answer.seen)
    assert "<b>two" not in html
    assert 'title="&lt;b&gt;two"' in html
    assert f'title="{"a long name " * 20}"' in html


def test_what_cannot_be_explained_says_why_in_its_place(loaded: Loaded) -> None:
    html = cards.failure_card(3, loaded, work.look(loaded, GRACE), "nothing was <softened>")
    assert "nothing was &lt;softened&gt;" in html
    assert "cp-tile" in html


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0, 0.25, 0.5, 0.75, 1]),
        (2.7, 8.5, [2, 4, 6, 8, 10]),
        (-3.0, 4.0, [-4, -2, 0, 2, 4]),
        (5.0, 5.0, [4, 6]),
        (0.0, 0.0, [0, 0.25]),
        (-0.02, 0.013, [-0.02, -0.01, 0, 0.01, 0.02]),
    ],
)
def test_ticks_are_round_and_hold_both_ends(low: float, high: float, expected: list[float]) -> None:
    marks = ascents.ticks(low, high)
    assert marks == pytest.approx(expected, abs=1e-9)


def test_two_curves_have_one_scale(loaded: Loaded) -> None:
    """One score stands at one height in both, whatever else each of them has."""
    one, other = torch.tensor([0.0, 1.0]), torch.tensor([0.0, 8.0])
    both = torch.cat([one, other])
    charts = [ascents.line_chart(scores, both) for scores in (one, other)]
    heights = [re.findall(r'cy="([\d.]+)"', chart) for chart in charts]
    assert heights[0][0] == heights[1][0]
    (start, low), (_, high) = (map(float, pair) for pair in heights)
    assert (start - low) * 8 == pytest.approx(start - high, abs=0.5)
    for chart in charts:
        assert re.findall(r">([\d.]+)</text>", chart) == ["0", "2", "4", "6", "8", "0", "1"]
        assert ">step</text>" in chart
        assert ">score</text>" in chart


def test_an_ascents_ways_are_drawn_on_one_scale(loaded: Loaded) -> None:
    seen = work.look(loaded, GRACE)
    question = Question("mine", GRACE, targets=(1,), temperature=1.0)
    climb = Climb(steps=3, compare=True)
    result = climbing.ascend(loaded, seen, question, climb, Job(lambda job: None))
    charts = re.findall(r"<svg.*?</svg>", ascents.ascent_card(loaded, result))
    scales = [re.findall(r'text-anchor="end">(.*?)<', chart) for chart in charts]
    assert len(charts) == 2
    assert scales[0] == scales[1]
    values = [float(text.replace("\u2212", "-")) for text in scales[0]]
    every = torch.cat([scores[0] for scores in result.scores.values()])
    assert values[0] <= float(every.min())
    assert values[-1] >= float(every.max())
