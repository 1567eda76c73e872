"""From a question on a `Desk` to an answer on the page, with progress and turn numbers."""

from __future__ import annotations

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
from captum_pullback.app.choices import class_choices, last_layer, layer_choices
from captum_pullback.app.desk import RANGES, Desk, Wanted, whole
from captum_pullback.app.jobs import Cancelled, Job, Jobs, Ticket
from captum_pullback.app.question import Loaded, Photo, Question
from captum_pullback.app.refusals import refuse, words
from captum_pullback.app.work import Explanation, Seen
from captum_pullback.figures.panels import Method
from captum_pullback.study.errors import UsageError
from captum_pullback.zoo.photos import PhotoError

__all__ = ["Answering", "Changes"]

Result = TypeVar("Result")
#: For each part of the page that changes, its new value.
Changes = dict[Any, Any]
_PATIENCE, _TICK = 0.4, 0.2


class Answering:
    """What all event handlers share: how a question becomes an answer on the page.

    Args:
        networks: The networks by name.
        samples: The sample photographs.
    """

    def __init__(self, networks: Mapping[str, Loaded], samples: list[Photo]) -> None:
        self.networks = networks
        self.samples = {photo.name: photo for photo in samples}
        self.jobs = Jobs()
        #: The page's components by name; `page.build` sets them.
        self.parts: dict[str, Any] = {}

    def desk(self) -> Desk:
        """Make a desk where nothing has been asked yet."""
        first = next(iter(self.networks.values()))
        return Desk(Wanted(first.name, rules=first.rules, **self.own(first)))

    def note(self, desk: Desk, turn: Any, changes: Mapping[str, Any]) -> None:
        """Record what has changed, and in which turn."""
        number = whole(turn)
        if desk.fresh and number > 50:  # the server forgot this page, and cannot know its settings
            refuse("Please reload the page.", "This page was left idle for too long")
        desk.want(number, changes)

    def ask(
        self, desk: Desk, turn: Any, changes: Mapping[str, Any], request: gr.Request
    ) -> Iterator[Changes]:
        """Yield predictions and maps together, then the scores that are still missing."""
        self.note(desk, turn, changes)
        # The order matters: whoever takes over the lane afterwards sees what was recorded before.
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
        """Run the network on the photograph, unless it was the last one it ran on."""
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
        for each in (answer, desk.pinned):  # an answer that was pinned early has no scores yet
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
        """Run the ascent that the settings describe."""
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
        # An event from before the ascent may have arrived after it.
        changes = self._ascents(desk, turn, desk.wanted()[1], seen)
        yield {
            self.parts["ascents"]: card(0, desk.ascent_card),
            **changes,
            self.parts["status"]: message_card(
                turn, "", {"ascent_code": code.ascent_code(loaded, result)}
            ),
        }

    def _ascents(self, desk: Desk, turn: int, wanted: Wanted, seen: Seen) -> Changes:
        """Return the ascent shown, with this turn's number, if it still matches the settings."""
        result = desk.ascent
        if result is None or result.climb != wanted.climb():
            return {}
        if result.question != climbing.essential(wanted.question(seen)):
            return {}
        return {self.parts["ascents"]: card(turn, desk.ascent_card)}

    def own(self, loaded: Loaded) -> dict[str, Any]:
        """Return the settings whose values depend on the network."""
        return {"layer": last_layer(loaded) or ""}

    def loaded(self, desk: Desk) -> Loaded:
        """Return the network that was chosen."""
        return self.networks[desk.wanted()[1].network]

    def question(self, desk: Desk, wanted: Wanted) -> Question | None:
        """Return the question that the settings ask, if the network has seen the photograph."""
        seen = desk.seen
        if seen is None or (seen.network, seen.photo) != (wanted.network, wanted.photo):
            return None
        return wanted.question(seen)

    def _controls(self, desk: Desk, wanted: Wanted, seen: Seen) -> dict[str, Any]:
        """Return values for the controls that other events move, too."""
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
        """Correct a control that shows a value other than the one in use."""
        kept = changes.get(name, value)
        if name in RANGES and kept != value:
            yield {self.parts["status"]: message_card(desk.wanted()[0], "", {name: kept})}

    def _failed(self, desk: Desk, turn: int, wanted: Wanted, seen: Seen, why: str) -> Changes:
        """Say why there is no explanation; the last one of the same photograph stays, dimmed."""
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
        """Return the card of an answer and of the pinned one."""
        pinned = desk.pinned
        shown = [answer] if pinned is None else [pinned, answer]
        pairs = [(self.networks[each.question.network], each) for each in shown]
        return answers_card(turn, pairs, show, pending, controls)

    def stopped(self, desk: Desk, turn: int) -> Changes:
        """Keep what is shown, drop what was still to come, and say so in a line."""
        wanted, answer = desk.wanted()[1], desk.answer
        current = answer is not None and answer.question == self.question(desk, wanted)
        text = "Stopped." if current else "Stopped: what you see is from before the last change."
        changes: Changes = {self.parts["status"]: message_card(turn, text)}
        if answer is not None and current:
            changes[self.parts["answers"]] = self.answers(desk, turn, answer, wanted.show)
        return changes

    def last_word(self, desk: Desk, turn: int) -> Iterator[Changes]:
        """End an answer that was stopped.

        `Actions.stop` says the same immediately, but on another connection, and so may reach the
        page before progress that was already on its way.
        """
        if desk.stopped(turn):
            yield self.stopped(desk, turn)

    def follow(
        self, ticket: Ticket, desk: Desk, turn: int, run: Callable[[Job[Result]], Result]
    ) -> Generator[Changes, None, Result]:
        """Run a job, yield its progress if it takes long, and return its result.

        Raises:
            Cancelled: It was stopped, or something newer was asked.
        """
        if desk.stopped(turn):
            raise Cancelled
        job = self.jobs.start(ticket, run)
        wait = _PATIENCE
        try:
            while not job.wait(wait):
                # Made before checking that it still counts, so that its replacement is newer.
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
