"""What is asked at a desk, in whatever order it arrives; and values that are none."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import pytest
import torch

from captum_pullback.app import climbing
from captum_pullback.app.desk import Desk, Wanted, read, rule_choices
from captum_pullback.app.question import Loaded, Photo, Question
from captum_pullback.app.work import Seen
from captum_pullback.engine.spread import Spread
from captum_pullback.study.predictions import Prediction
from captum_pullback.zoo import networks as zoo

COFFEE, ROCKET = Photo("coffee"), Photo("rocket")


def seen_by(network: str, photo: Photo, logits: tuple[float, ...] = (0.0, 2.0, 1.0)) -> Seen:
    values = torch.tensor(logits)
    chances = values.softmax(0)
    return Seen(network, photo, torch.zeros(1, 3, 2, 2), values, chances, Prediction(values))


CHANGES: list[tuple[int, dict[str, Any]]] = [
    (1, {"photo": COFFEE, "targets": None}),
    (2, {"targets": (2,)}),
    (3, {"temperature": 2.0}),
    (4, {"photo": ROCKET, "targets": None}),
    (5, {"temperature": 3.0}),
]


@pytest.mark.parametrize("order", list(itertools.permutations(range(5)))[::7])
def test_the_newest_of_each_setting_counts_in_whatever_order_it_arrives(
    order: tuple[int, ...],
) -> None:
    desk = Desk(Wanted("embedded"))
    for index in order:
        desk.want(*CHANGES[index])
    turn, wanted = desk.wanted()
    assert turn == 5
    assert wanted == Wanted("embedded", photo=ROCKET, targets=None, temperature=3.0)


def test_a_late_answer_does_not_replace_a_newer_one() -> None:
    desk = Desk(Wanted("embedded"))
    newer, older = object(), object()
    desk.show(5, newer)  # type: ignore[arg-type]
    desk.show(4, older)  # type: ignore[arg-type]
    assert desk.answer is newer


def test_another_visitor_has_a_desk_of_their_own() -> None:
    desk = Desk(Wanted("embedded"))
    desk.want(3, {"temperature": 4.0})
    other = copy.deepcopy(desk)
    assert other.fresh
    assert other.wanted() == (0, Wanted("embedded"))


def test_one_goes_back_to_the_photograph_that_worked() -> None:
    desk = Desk(Wanted("embedded"))
    desk.want(1, {"photo": COFFEE, "targets": (2,)})
    _, coffee = desk.wanted()
    desk.settle(coffee, seen_by("embedded", COFFEE))
    broken = Photo("broken.jpg", "/nowhere")
    desk.want(2, {"photo": broken, "targets": None})
    desk.want(3, {"temperature": 2.0})
    _, wanted = desk.wanted()
    assert desk.back(wanted)
    assert desk.wanted() == (3, Wanted("embedded", photo=COFFEE, targets=(2,), temperature=2.0))
    # but not from one that was chosen meanwhile
    desk.want(4, {"photo": ROCKET, "targets": None})
    desk.back(wanted)
    assert desk.wanted()[1].photo == ROCKET


def test_nowhere_to_go_back_to() -> None:
    desk = Desk(Wanted("embedded"))
    desk.want(1, {"photo": COFFEE, "targets": None})
    assert not desk.back(desk.wanted()[1])


def test_pinning_twice_is_not_pinning() -> None:
    desk = Desk(Wanted("embedded"))
    desk.show(1, object())  # type: ignore[arg-type]
    desk.pin()
    assert desk.pinned is desk.answer
    desk.pin()
    assert desk.pinned is None


def test_the_most_probable_class_unless_one_is_chosen() -> None:
    seen = seen_by("embedded", COFFEE)
    assert Wanted("embedded").question(seen).targets == (1,)
    assert Wanted("embedded", targets=(2, 0)).question(seen).targets == (2, 0)
    assert Wanted("embedded", targets=()).question(seen).targets == ()
    assert Wanted("embedded", pool=2.0).question(seen).pool_temperature is None
    assert Wanted("embedded", pool=2.0, follow=False).question(seen).pool_temperature == Spread(
        2.0, "output"
    )


def test_the_unit_is_of_all_temperatures_and_0_is_hard_in_any() -> None:
    seen = seen_by("embedded", COFFEE)
    wanted = Wanted("embedded", temperature=2.0, pool=0.0, follow=False, unit="spread")
    question = wanted.question(seen)
    assert (question.temperature, question.pool_temperature) == (Spread(2.0), 0.0)
    question = Wanted("embedded", temperature=0.0, pool=3.0, follow=False, unit="spread")
    assert question.question(seen).temperature == 0.0
    assert question.question(seen).pool_temperature == Spread(3.0)


def test_rules_that_the_app_was_started_with_can_be_chosen_again() -> None:
    loaded = Loaded(zoo.load(), rules="semantic,gelu=none")
    assert rule_choices(loaded) == ["semantic", "excitation", "semantic,gelu=none"]
    assert read("rules", "semantic,gelu=none", loaded) == {"rules": "semantic,gelu=none"}


LOADED = Loaded(zoo.load(), layers={"layer1": (3, 4, 4)}, outputs=24)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("temperature", 0.25, {"temperature": 0.25}),
        ("temperature", 9, {"temperature": 5.0}),
        ("temperature", -3, {"temperature": 0.0}),
        ("temperature", math.inf, {"temperature": 5.0}),
        ("temperature", math.nan, {}),
        ("temperature", None, {}),
        ("temperature", "1", {}),
        ("temperature", True, {}),
        ("steps", 3.7, {"steps": 3}),
        ("steps", 1e300, {"steps": 20}),
        ("channel", -1, {"channel": 0}),
        ("channel", None, {}),
        ("step_size", 0, {"step_size": 0.01}),
        ("radius", 100, {"radius": 2.0}),
        ("method", "ig", {"method": "ig"}),
        ("method", "eval", {}),
        ("method", ["ig"], {}),
        ("what", "everything", {}),
        ("unit", "spread", {"unit": "spread"}),
        ("unit", "kelvin", {}),
        ("unit", None, {}),
        ("rules", "excitation", {"rules": "excitation"}),
        ("rules", "semantic,gelu=none", {}),
        ("rules", ["semantic"], {}),
        ("show", "colors", {"show": "colors"}),
        ("layer", "layer1", {"layer": "layer1"}),
        ("layer", "layer9", {}),
        ("layer", None, {}),
        ("layer", ["layer1"], {}),
        ("targets", [3, 1, 3], {"targets": (3, 1)}),
        ("targets", [-1, 24, True, "a", 2.0, None], {"targets": ()}),
        ("targets", None, {"targets": ()}),
        ("follow", True, {"follow": True}),
        ("everywhere", None, {"everywhere": False}),
    ],
)
def test_values_are_brought_into_their_range(name: str, value: Any, expected: Any) -> None:
    assert read(name, value, LOADED) == expected


def test_an_ascent_is_old_only_where_it_would_be_another() -> None:
    one = Question("embedded", COFFEE, targets=(1,), method="ig", layer="a", channel=4)
    other = Question("embedded", COFFEE, what="layer", targets=(1,), layer="b")
    assert climbing.essential(one) == climbing.essential(other)
    neuron = Question("embedded", COFFEE, what="neuron", targets=(1,), layer="a", channel=4)
    assert climbing.essential(neuron).targets == ()
    assert climbing.essential(neuron).channel == 4
    assert climbing.essential(neuron) != climbing.essential(one)
    hotter = Question("embedded", COFFEE, targets=(1,), temperature=2.0)
    assert climbing.essential(hotter) != climbing.essential(one)
    ruled = Question("embedded", COFFEE, targets=(1,), rules="excitation")
    assert climbing.essential(ruled) != climbing.essential(one)
    spread = Question("embedded", COFFEE, targets=(1,), temperature=Spread(0.3))
    assert climbing.essential(spread) != climbing.essential(one)
