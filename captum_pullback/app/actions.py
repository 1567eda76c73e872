"""The page's event handlers. They keep no state of a visitor: that is on the `Desk`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from captum_pullback.app import work
from captum_pullback.app.answering import Answering, Changes
from captum_pullback.app.cards import message_card
from captum_pullback.app.desk import Desk, read, whole
from captum_pullback.app.jobs import Cancelled
from captum_pullback.app.question import Photo
from captum_pullback.app.refusals import refuse, words
from captum_pullback.study.softness import temperature_words

__all__ = ["Actions"]


class Actions(Answering):
    """The page's event handlers. An event may come again before it is answered; the newest counts.

    Args:
        networks: The networks by name.
        samples: The sample photographs.
    """

    def look_first(self, desk: Desk, turn: Any, request: gr.Request) -> Iterator[Changes]:
        """Explain a sample when the page opens, so that newcomers see an explanation at once."""
        photo = next(iter(self.samples.values()), None)
        yield from self.ask(desk, turn, {"photo": photo, "targets": None}, request)

    def look_at_sample(
        self, desk: Desk, turn: Any, request: gr.Request, event: gr.EventData
    ) -> Iterator[Changes]:
        """Explain the sample that was clicked."""
        photo = self.samples.get(str(event.pick))
        if photo is not None:
            yield from self.ask(desk, turn, {"photo": photo, "targets": None}, request)

    def look_at_file(
        self, path: str | None, desk: Desk, turn: Any, request: gr.Request
    ) -> Iterator[Changes]:
        """Explain an uploaded file."""
        if path is None:
            refuse("Please upload it again.", "No file has arrived")
            return
        name = Path(path).name
        photo = Photo(name, path, pasted=name.startswith("pasted."))
        yield from self.ask(desk, turn, {"photo": photo, "targets": None}, request)

    def change_network(
        self, name: str, desk: Desk, turn: Any, request: gr.Request
    ) -> Iterator[Changes]:
        """Explain the same photograph with another network."""
        loaded = self.networks.get(str(name))
        if loaded is not None:
            changes = {"network": str(name), "targets": None, **self.own(loaded)}
            yield from self.ask(desk, turn, changes, request)

    def pick_class(
        self, desk: Desk, turn: Any, request: gr.Request, event: gr.EventData
    ) -> Iterator[Changes]:
        """Explain the predicted class that was clicked."""
        pick = [int(event.pick)] if str(event.pick).isdecimal() else []
        yield from self.ask(desk, turn, read("targets", pick, self.loaded(desk)), request)

    def change(self, name: str) -> Callable[..., Iterator[Changes]]:
        """Make the handler for a setting.

        If a control shows a value other than the one in use, the handler corrects the control.
        """

        def ask(value: Any, desk: Desk, turn: Any, request: gr.Request) -> Iterator[Changes]:
            changes = read(name, value, self.loaded(desk))
            yield from self.put_right(desk, name, value, changes)
            yield from self.ask(desk, turn, changes, request)

        return ask

    def change_climb(self, name: str) -> Callable[..., Iterator[Changes]]:
        """Make the handler for a setting of ascents; it does nothing before the first ascent."""

        def ask(value: Any, desk: Desk, turn: Any, request: gr.Request) -> Iterator[Changes]:
            changes = read(name, value, self.loaded(desk))
            yield from self.put_right(desk, name, value, changes)
            self.note(desk, turn, changes)
            if desk.ascent is not None:
                yield from self.ascend_now(desk, request)

        return ask

    def pin(self, desk: Desk, turn: Any, request: gr.Request) -> Iterator[Changes]:
        """Keep the answer beside those that follow, or release it."""
        desk.pin()
        yield from self.ask(desk, turn, {}, request)

    def fit(self, desk: Desk, turn: Any, request: gr.Request) -> Iterator[Changes]:
        """Fit the temperature, set the slider to it, and draw its map."""
        self.note(desk, turn, {})
        ticket = self.jobs.enter(str(request.session_hash), "explain")
        number, wanted = desk.wanted()
        loaded = self.networks[wanted.network]
        try:
            seen = yield from self.look(ticket, desk, number, wanted)
            question = wanted.question(seen)
            fit = yield from self.follow(
                ticket, desk, number, lambda job: work.fit(loaded, seen, question, job)
            )
        except Cancelled:
            yield from self.last_word(desk, number)
            return
        except Exception as error:
            yield from self.ask(desk, turn, {}, request)  # so that the answer is no longer dimmed
            refuse(words(error), "No temperature was fitted")
            return
        found = fit.temperature if fit.scale is None else fit.scale
        best = round(min(float(found), 5.0), 2)  # type: ignore[arg-type]  # one number
        cosines = " and ".join(
            f"{each:.2f} with {name}"
            for each, name in zip(fit.best.cosines, ("the runner-up's", "another's"), strict=False)
        )
        gr.Info(
            "<b>The temperature was fitted</b><br>"
            f"Infidelity {fit.infidelity:.3g} at T = {temperature_words(fit.temperature)}"
            f"{', the limit of the search' * fit.at_limit}; the plain "
            f"gradient has {fit.gradient.infidelity:.3g}."
            + (f" Cosine of the map with other classes': {cosines}." if cosines else "")
            + f" {len(fit.failed)} of {len(fit.tried)} candidates fail to tell classes apart."
            + (" The slider ends at 5." * (best >= 5)),
        )
        yield {self.parts["status"]: message_card(number, "", {"temperature": best})}
        yield from self.ask(desk, turn, {"temperature": best}, request)

    def ascend(self, desk: Desk, turn: Any, request: gr.Request) -> Iterator[Changes]:
        """Run an ascent for the chosen classes."""
        self.note(desk, turn, {})
        yield from self.ascend_now(desk, request)

    def stop(self, desk: Desk, turn: Any) -> Changes:
        """Stop what was asked up to this turn, even if it arrives later; what is shown stays."""
        return self.stopped(desk, desk.stop(whole(turn)))

    def leave(self, request: gr.Request) -> None:
        """Stop the jobs of a page that was closed."""
        self.jobs.stop(str(request.session_hash))
