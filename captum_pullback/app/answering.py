"""How what is asked at a `Desk` is answered: in one piece, with its progress, and its number."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, TypeVar

import gradio as gr

from captum_pullback.app import climbing, code, work
from captum_pullback.app.ascents import ascent_card
from captum_pullback.app.cards import (
    answers_card,
    card,
    failure_card,
    message_card,
    predictions_card,
    progress_card,
)
from captum_pullback.app.desk import RANGES, Desk, Wanted
from captum_pullback.app.jobs import Cancelled, Job, Jobs, Ticket
from captum_pullback.app.question import Loaded, Photo, Question
from captum_pullback.app.refusals import refuse, words
from captum_pullback.app.work import Explanation, Seen
from captum_pullback.figures.panels import Method
from captum_pullback.study.errors import UsageError
from captum_pullback.study.report import class_name
from captum_pullback.zoo.photos import PhotoError

__all__ = ["Answering", "Changes", "class_choices", "last_layer", "layer_choices", "whole"]

Result = TypeVar("Result")
#: For each part of the page that changes, its value.
Changes = dict[Any, Any]
_PATIENCE, _TICK = 0.4, 0.2


class Answering:
    """What all event handlers share: one way from a question to the screen.

    Args:
        networks: by name.
        samples: photographs that are at hand.
    """

    def __init__(self, networks: Mapping[str, Loaded], samples: list[Photo]) -> None:
        self.networks = networks
        self.samples = {photo.name: photo for photo in samples}
        self.jobs = Jobs()
        #: The page's parts by name; the page sets them.
        self.parts: dict[str, Any] = {}

    def desk(self) -> Desk:
        """One at which nothing was asked yet."""
        first = next(iter(self.networks.values()))
        return Desk(Wanted(first.name, rules=first.rules, **self.own(first)))

    def note(self, desk: Desk, turn: Any, changes: Mapping[str, Any]) -> None:
        """Takes down what has changed, and with which turn."""
        number = whole(turn)
        if desk.fresh and number > 50:  # it was forgotten, and does not know how the page stands
            refuse("Load it again, please.", "This page was left alone for too long")
        desk.want(number, changes)

    def ask(
        self, desk: Desk, turn: Any, changes: Mapping[str, Any], request: gr.Request
    ) -> Iterator[Changes]:
        """Predictions and maps in one piece; then the figures that are not there yet."""
        self.note(desk, turn, changes)
        # In this order: whoever takes the lane over afterwards sees what was noted before.
        ticket = self.jobs.enter(str(request.session_hash), "explain")
        number, wanted = desk.wanted()
        status = self.parts["status"]
        if wanted.photo is None:
            yield {status: message_card(number, "Choose a photograph first.")}
            return
        try:
            seen = yield from self.look(ticket, desk, number, wanted)
        except Cancelled:
            yield from self.last_word(desk, number)
            return
        except PhotoError as error:
            refuse(words(error), "This photograph cannot be used")
            if desk.back(wanted):
                yield from self.ask(desk, 0, {}, request)
            else:
                yield {status: message_card(number, words(error))}
            return
        except Exception as error:
            yield {status: message_card(number, f"{wanted.network} cannot be used: {words(error)}")}
            return
        try:
            yield from self._explain(ticket, desk, number, wanted, seen)
        except Cancelled:
            yield from self.last_word(desk, number)
        except Exception as error:
            yield self._failed(desk, number, wanted, seen, words(error))

    def look(
        self, ticket: Ticket, desk: Desk, turn: int, wanted: Wanted
    ) -> Generator[Changes, None, Seen]:
        """Shows the network the photograph, unless it has just seen it."""
        loaded, photo, seen = self.networks[wanted.network], wanted.photo, desk.seen
        if photo is None:
            raise UsageError("choose a photograph first")
        if seen is None or (seen.network, seen.photo) != (wanted.network, photo):
            seen = yield from self.follow(ticket, desk, turn, lambda job: work.look(loaded, photo))
        return seen

    def _explain(
        self, ticket: Ticket, desk: Desk, turn: int, wanted: Wanted, seen: Seen
    ) -> Iterator[Changes]:
        loaded, question = self.networks[wanted.network], wanted.question(seen)
        answer = desk.answer
        if answer is None or answer.question != question:
            answer = yield from self.follow(
                ticket, desk, turn, lambda job: work.explain(loaded, seen, question, job)
            )
        if not desk.show(turn, answer):
            raise Cancelled
        desk.settle(wanted, seen)
        controls = {
            **self._controls(desk, wanted, seen),
            "answer_code": code.explanation_code(loaded, answer),
        }
        yield {
            self.parts["predictions"]: predictions_card(turn, loaded, seen),
            self.parts["answers"]: self.answers(desk, turn, answer, wanted.show, True, controls),
            self.parts["status"]: message_card(turn),
            **self._ascents(desk, turn, wanted, seen),
        }
        for each in (answer, desk.pinned):  # one that was pinned early has no figures yet
            if each is None or each.rated or not desk.has(each):
                continue
            full = yield from self.follow(ticket, desk, turn, self._rating(each))
            if not desk.rate(turn, each, full):
                raise Cancelled
            answer = full if each is answer else answer
            yield {
                self.parts["answers"]: self.answers(desk, turn, answer, wanted.show, True),
                self.parts["status"]: message_card(turn),
            }

    def _rating(self, answer: Explanation) -> Callable[[Job[Explanation]], Explanation]:
        loaded = self.networks[answer.question.network]
        return lambda job: work.rated(loaded, answer, job)

    def ascend_now(self, desk: Desk, request: gr.Request) -> Iterator[Changes]:
        """Draws what is asked for on the photograph."""
        ticket = self.jobs.enter(str(request.session_hash), "ascend")
        turn, wanted = desk.wanted()
        loaded, climb = self.networks[wanted.network], wanted.climb()
        try:
            seen = yield from self.look(ticket, desk, turn, wanted)
            question = wanted.question(seen)
            result = yield from self.follow(
                ticket, desk, turn, lambda job: climbing.ascend(loaded, seen, question, climb, job)
            )
        except Cancelled:
            yield from self.last_word(desk, turn)
            return
        except Exception as error:
            yield {self.parts["status"]: message_card(turn)}
            refuse(words(error), "No ascent was made")
            return
        desk.ascent, desk.ascent_card = result, ascent_card(loaded, result)
        # Something that was done before it may have arrived after it.
        changes = self._ascents(desk, turn, desk.wanted()[1], seen)
        yield {
            self.parts["ascents"]: card(0, desk.ascent_card),
            **changes,
            self.parts["status"]: message_card(
                turn, "", {"ascent_code": code.ascent_code(loaded, result)}
            ),
        }

    def _ascents(self, desk: Desk, turn: int, wanted: Wanted, seen: Seen) -> Changes:
        """The ascent on the screen again, with the number of this turn, if it still holds."""
        result = desk.ascent
        if result is None or result.climb != wanted.climb():
            return {}
        if result.question != climbing.essential(wanted.question(seen)):
            return {}
        return {self.parts["ascents"]: card(turn, desk.ascent_card)}

    def own(self, loaded: Loaded) -> dict[str, Any]:
        """The settings that each network has its own of."""
        return {"temperature": loaded.temperature, "layer": last_layer(loaded) or ""}

    def loaded(self, desk: Desk) -> Loaded:
        """The network that is wanted."""
        return self.networks[desk.wanted()[1].network]

    def question(self, desk: Desk, wanted: Wanted) -> Question | None:
        """What is asked, if the network has seen the photograph."""
        seen = desk.seen
        if seen is None or (seen.network, seen.photo) != (wanted.network, wanted.photo):
            return None
        return wanted.question(seen)

    def _controls(self, desk: Desk, wanted: Wanted, seen: Seen) -> dict[str, Any]:
        """The controls that not only their own events move."""
        loaded, targets = self.networks[wanted.network], list(wanted.question(seen).targets)
        controls: dict[str, Any] = {"pin": "Pin to compare" if desk.pinned is None else "Unpin"}
        if desk.listed == wanted.network:
            return controls | {"targets": targets}
        desk.listed = wanted.network
        return controls | {
            "targets": {"choices": class_choices(loaded), "value": targets},
            "layer": {"choices": layer_choices(loaded), "value": wanted.layer or None},
            "temperature": wanted.temperature,
        }

    def put_right(
        self, desk: Desk, name: str, value: Any, changes: Mapping[str, Any]
    ) -> Iterator[Changes]:
        """Moves a control that shows another value than the one that counts."""
        kept = changes.get(name, value)
        if name in RANGES and kept != value:
            yield {self.parts["status"]: message_card(desk.wanted()[0], "", {name: kept})}

    def _failed(self, desk: Desk, turn: int, wanted: Wanted, seen: Seen, why: str) -> Changes:
        """Why there is no explanation. The last one stays, dimmed, if it is of this photograph."""
        loaded, before = self.networks[wanted.network], desk.answer
        changes: Changes = {
            self.parts["predictions"]: predictions_card(turn, loaded, seen),
            self.parts["status"]: message_card(turn, why, self._controls(desk, wanted, seen)),
            **self._ascents(desk, turn, wanted, seen),
        }
        desk.settle(wanted, seen)
        if before is None or before.seen is not seen:
            changes[self.parts["answers"]] = failure_card(turn, loaded, seen, why)
        return changes

    def answers(
        self,
        desk: Desk,
        turn: int,
        answer: Explanation,
        show: Method,
        pending: bool = False,
        controls: Mapping[str, Any] | None = None,
    ) -> str:
        """An answer, and the one that is pinned."""
        pinned = desk.pinned
        shown = [answer] if pinned is None else [pinned, answer]
        pairs = [(self.networks[each.question.network], each) for each in shown]
        return answers_card(turn, pairs, show, pending, controls)

    def stopped(self, desk: Desk, turn: int) -> Changes:
        """What is shown stays, without what was still to come; and a line says so."""
        wanted, answer = desk.wanted()[1], desk.answer
        current = answer is not None and answer.question == self.question(desk, wanted)
        text = "Stopped." if current else "Stopped: what you see is from before the last change."
        changes: Changes = {self.parts["status"]: message_card(turn, text)}
        if answer is not None and current:
            changes[self.parts["answers"]] = self.answers(desk, turn, answer, wanted.show)
        return changes

    def last_word(self, desk: Desk, turn: int) -> Iterator[Changes]:
        """Ends an answer that was stopped.

        `Actions.stop` says the same at once; but its words go another way to the page, and may
        arrive before the progress that was already under way.
        """
        if desk.stopped(turn):
            yield self.stopped(desk, turn)

    def follow(
        self, ticket: Ticket, desk: Desk, turn: int, run: Callable[[Job[Result]], Result]
    ) -> Generator[Changes, None, Result]:
        """Runs a job, yields its progress if it takes long, and returns what came out.

        Raises:
            Cancelled: it was stopped, or something newer is wanted.
        """
        if desk.stopped(turn):
            raise Cancelled
        job = self.jobs.start(ticket, run)
        wait = _PATIENCE
        try:
            while not job.wait(wait):
                # Made before it is asked whether it counts: what replaces it is made later.
                shown = progress_card(turn, *job.progress)
                if desk.stopped(turn):
                    job.stop()
                job.check()
                yield {self.parts["status"]: shown}
                wait = _TICK
            result = job.result()
            if desk.stopped(turn):
                raise Cancelled
            return result
        except GeneratorExit:  # the page was closed
            job.stop()
            raise


def whole(turn: Any) -> int:
    """The number of a turn; 0 for what is none."""
    return int(turn) if isinstance(turn, (int, float)) and math.isfinite(turn) else 0


def class_choices(loaded: Loaded) -> list[tuple[str, int]]:
    """The classes, for the search."""
    count = len(loaded.network.classes) or loaded.outputs
    return [(class_name(loaded.network, index), index) for index in range(count)]


def layer_choices(loaded: Loaded) -> list[tuple[str, str]]:
    """The layers, with their shapes."""
    times = " \N{MULTIPLICATION SIGN} "
    return [(f"{n} ({times.join(map(str, s))})", n) for n, s in loaded.layers.items()]


def last_layer(loaded: Loaded) -> str | None:
    """The last that gives pictures of more than a pixel."""
    names = [name for name, s in loaded.layers.items() if len(s) == 3 and s[1] > 1]
    return names[-1] if names else next(iter(loaded.layers), None)
