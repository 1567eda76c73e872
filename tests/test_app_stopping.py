"""Stop, whatever overtakes it: the last word on the screen is an answer or that it was stopped."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio", reason="gradio is not installed")

from captum_pullback.app import answering, climbing, work
from captum_pullback.app.actions import Actions
from captum_pullback.app.cards import message_card, progress_card
from captum_pullback.app.command import _networks, _samples
from captum_pullback.app.jobs import Job
from captum_pullback.commands.parser import parser

REQUEST: Any = SimpleNamespace(session_hash="one")
Screen = dict[str, str]


@pytest.fixture
def do(monkeypatch: pytest.MonkeyPatch) -> Actions:
    """The page's actions without a page; a bar is shown at once."""
    monkeypatch.setattr(answering, "_PATIENCE", 0.01)
    monkeypatch.setattr(answering, "_TICK", 0.01)
    networks = _networks(parser().parse_args(["app"]))
    actions = Actions(networks, _samples())
    actions.parts = {name: name for name in ("status", "predictions", "answers", "ascents")}
    return actions


def endless(*given: Any) -> Any:
    """Work that goes on until it is stopped."""
    job: Job[Any] = given[-1]
    job.begin("Endless", 1)
    while True:
        threading.Event().wait(0.005)
        job.check()


def until(answers: Iterator[Screen], part: str, word: str) -> Screen:
    """The screen as soon as this part has this word, of what is said in this order."""
    screen: Screen = {}
    for changes in answers:
        screen |= changes
        if word in screen.get(part, ""):
            return screen
    raise AssertionError(f"{part} never has {word}: {screen}")


def rest(screen: Screen, answers: Iterator[Screen]) -> Screen:
    """The screen at the end."""
    for changes in answers:
        screen = screen | changes
    return screen


def test_progress_on_its_way_is_not_the_last_word(
    do: Actions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop answers past the queue, so that a bar which was sent before may be shown after it."""
    monkeypatch.setattr(work, "rated", endless)
    desk = do.desk()
    answers = do.look_first(desk, 1, REQUEST)
    screen = until(answers, "status", "Endless")
    assert "cp-wait" in screen["answers"]
    do.stop(desk, 1)  # is shown, and then the bar
    screen = rest(screen, answers)
    assert screen["status"] == same(message_card(1, "Stopped."), screen["status"])
    assert "cp-wait" not in screen["answers"]
    assert screen["answers"].count("\u2013</dd>") == 2


def same(card: str, other: str) -> str:
    """The card with the serial number of the other."""
    number = 'data-serial="'
    head, tail = card.split(number)
    return head + number + other.split(number)[1].split('"')[0] + '"' + tail.split('"', 1)[1]


@pytest.mark.parametrize("begin", ["explain", "fit", "ascend"])
def test_whatever_is_stopped_says_so_itself(
    do: Actions, monkeypatch: pytest.MonkeyPatch, begin: str
) -> None:
    desk = do.desk()
    rest({}, do.look_first(desk, 1, REQUEST))
    monkeypatch.setattr(work, "explain", endless)
    monkeypatch.setattr(work, "fit", endless)
    monkeypatch.setattr(climbing, "ascend", endless)
    answers = {
        "explain": lambda: do.change("temperature")(0.3, desk, 2, REQUEST),
        "fit": lambda: do.fit(desk, 2, REQUEST),
        "ascend": lambda: do.ascend(desk, 2, REQUEST),
    }[begin]()
    screen = until(answers, "status", "cp-progress")
    do.stop(desk, 2)
    screen = rest(screen, answers)
    assert "Stopped" in screen["status"]
    assert ("before the last change" in screen["status"]) == (begin == "explain")
    assert "cp-progress" not in screen["status"]


def test_an_answer_that_comes_with_the_stop_is_not_shown(
    do: Actions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ready, but has not been taken for shown when the stop comes."""
    desk = do.desk()
    rest({}, do.look_first(desk, 1, REQUEST))
    before, explain = desk.answer, work.explain

    def stopped_at_its_end(*given: Any) -> Any:
        answer = explain(*given)
        said.append(do.stop(desk, 2))
        return answer

    said: list[Screen] = []
    monkeypatch.setattr(work, "explain", stopped_at_its_end)
    screen = rest({}, do.change("temperature")(0.3, desk, 2, REQUEST))
    assert desk.answer is before, "files are of what is on the screen"
    assert "answers" not in screen
    assert "Stopped: what you see is from before the last change." in screen["status"]
    assert screen["status"] == same(said[0]["status"], screen["status"])


def test_a_question_that_the_stop_overtook_is_stopped(do: Actions) -> None:
    desk = do.desk()
    rest({}, do.look_first(desk, 1, REQUEST))
    before = desk.answer
    said = do.stop(desk, 2)  # the page has asked twice by now
    assert 'data-turn="1"' in said["answers"], "which stays dimmed: it does not answer the second"
    screen = rest({}, do.change("temperature")(0.3, desk, 2, REQUEST))
    assert "Stopped: what you see is from before the last change." in screen["status"]
    assert desk.answer is before
    # what is asked next takes place
    screen = rest({}, do.change("temperature")(0.4, desk, 3, REQUEST))
    assert "T = 0.4" in screen["answers"]
    assert screen["status"] == same(message_card(3), screen["status"])


def test_a_stop_does_not_stop_what_was_asked_after_it(
    do: Actions, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = do.desk()
    rest({}, do.look_first(desk, 1, REQUEST))
    rated = work.rated
    waiting, go = threading.Event(), threading.Event()

    def slow(*given: Any) -> Any:
        waiting.set()
        go.wait(60)
        return rated(*given)

    monkeypatch.setattr(work, "rated", slow)
    answers = do.change("temperature")(0.4, desk, 3, REQUEST)
    screen = until(answers, "answers", "T = 0.4")
    screen |= next(answers)
    assert waiting.wait(60)
    said = do.stop(desk, 2)  # late
    assert 'data-turn="2"' in said["status"], "the page has something of the third"
    go.set()
    screen = rest(screen, answers)
    assert "cp-wait" not in screen["answers"]
    assert "\u2013</dd>" not in screen["answers"]
    assert screen["status"] == same(message_card(3), screen["status"])


def test_whoever_is_overtaken_says_nothing_more(
    do: Actions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "rated", endless)
    desk = do.desk()
    first = do.look_first(desk, 1, REQUEST)
    until(first, "status", "cp-progress")
    second = do.change("temperature")(0.4, desk, 2, REQUEST)
    until(second, "answers", "T = 0.4")
    assert list(first) == []
    do.leave(REQUEST)
    rest({}, second)


def test_a_bar_is_older_than_what_replaces_it(do: Actions, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made before it is asked whether it is still wanted: see `static/page.js`."""
    made: list[int] = []

    def progress(*given: Any) -> str:
        card = progress_card(*given)
        if len(made) == 1:
            do.leave(REQUEST)  # between the two
        made.append(serial(card))
        return card

    monkeypatch.setattr(work, "rated", endless)
    monkeypatch.setattr(answering, "progress_card", progress)
    shown = [changes["status"] for changes in do.look_first(do.desk(), 1, REQUEST)]
    assert [serial(card) for card in shown if "cp-progress" in card] == made[:1]
    assert len(made) == 2
    assert serial(message_card(1)) > made[-1]


def serial(card: str) -> int:
    return int(card.split('data-serial="')[1].split('"')[0])
