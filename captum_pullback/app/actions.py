"""What the page's controls do. Nothing here belongs to one person: that is on the `Desk`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from captum_pullback.app import work
from captum_pullback.app.answering import Answering, Changes, whole
from captum_pullback.app.cards import message_card
from captum_pullback.app.desk import Desk, read
from captum_pullback.app.jobs import Cancelled
from captum_pullback.app.question import Photo
from captum_pullback.app.refusals import refuse, words
from captum_pullback.study.softness import temperature_text

__all__ = ["Actions"]


class Actions(Answering):
    """The page's event handlers, each of which may come twice: of all that was asked, the newest.

    Args:
        networks: by name.
        samples: photographs that are at hand.
    """

    def look_first(self, desk: Desk, turn: Any, request: gr.Request) -> Iterator[Changes]:
        """A sample, so that a newcomer sees at once what this is."""
        photo = next(iter(self.samples.values()), None)
        yield from self.ask(desk, turn, {"photo": photo, "targets": None}, request)

    def look_at_sample(
        self, desk: Desk, turn: Any, request: gr.Request, event: gr.EventData
    ) -> Iterator[Changes]:
        """The sample that was clicked on."""
        photo = self.samples.get(str(event.pick))
        if photo is not None:
            yield from self.ask(desk, turn, {"photo": photo, "targets": None}, request)

    def look_at_file(
        self, path: str | None, desk: Desk, turn: Any, request: gr.Request
    ) -> Iterator[Changes]:
        """A file that was given."""
        if path is None:
            refuse("Upload it again, please.", "No file has arrived")
            return
        name = Path(path).name
        photo = Photo(name, path, pasted=name.startswith("pasted."))
        yield from self.ask(desk, turn, {"photo": photo, "targets": None}, request)

    def change_network(
        self, name: str, desk: Desk, turn: Any, request: gr.Request
    ) -> Iterator[Changes]:
        """The same photograph, seen by another network."""
        loaded = self.networks.get(str(name))
        if loaded is not None:
            changes = {"network": str(name), "targets": None, **self.own(loaded)}
            if desk.wanted()[1].unit == "spread":  # which suits all networks alike
                del changes["temperature"]
            yield from self.ask(desk, turn, changes, request)

    def pick_class(
        self, desk: Desk, turn: Any, request: gr.Request, event: gr.EventData
    ) -> Iterator[Changes]:
        """The prediction that was clicked on."""
        pick = [int(event.pick)] if str(event.pick).isdecimal() else []
        yield from self.ask(desk, turn, read("targets", pick, self.loaded(desk)), request)

    def change(self, name: str) -> Callable[..., Iterator[Changes]]:
        """A setting of this name; a control that shows another value than counts is put right."""

        def ask(value: Any, desk: Desk, turn: Any, request: gr.Request) -> Iterator[Changes]:
            changes = read(name, value, self.loaded(desk))
            yield from self.put_right(desk, name, value, changes)
            yield from self.ask(desk, turn, changes, request)

        return ask

    def change_climb(self, name: str) -> Callable[..., Iterator[Changes]]:
        """The same for one of an ascent's own settings, which waits for the first ascent."""

        def ask(value: Any, desk: Desk, turn: Any, request: gr.Request) -> Iterator[Changes]:
            changes = read(name, value, self.loaded(desk))
            yield from self.put_right(desk, name, value, changes)
            self.note(desk, turn, changes)
            if desk.ascent is not None:
                yield from self.ascend_now(desk, request)

        return ask

    def pin(self, desk: Desk, turn: Any, request: gr.Request) -> Iterator[Changes]:
        """Keeps the answer beside those that follow, or lets it go."""
        desk.pin()
        yield from self.ask(desk, turn, {}, request)

    def fit(self, desk: Desk, turn: Any, request: gr.Request) -> Iterator[Changes]:
        """The temperature that is fitted, into the slider; and its map."""
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
            yield from self.ask(desk, turn, {}, request)  # what is shown counts again
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
            f"Infidelity {fit.infidelity:.3g} at T = {temperature_text(fit.temperature, 3)}"
            f"{', the limit of the search' * fit.at_limit}; the plain "
            f"gradient has {fit.gradient.infidelity:.3g}."
            + (f" Cosine of the map with other classes': {cosines}." if cosines else "")
            + f" {len(fit.failed)} of {len(fit.tried)} candidates fail to tell classes apart."
            + (" The slider ends at 5." * (best >= 5)),
        )
        yield {self.parts["status"]: message_card(number, "", {"temperature": best})}
        yield from self.ask(desk, turn, {"temperature": best}, request)

    def ascend(self, desk: Desk, turn: Any, request: gr.Request) -> Iterator[Changes]:
        """What the classes ask for, drawn on the photograph."""
        self.note(desk, turn, {})
        yield from self.ascend_now(desk, request)

    def stop(self, desk: Desk, turn: Any) -> Changes:
        """Stops what was asked up to this turn, also what arrives later; what is shown stays."""
        return self.stopped(desk, desk.stop(whole(turn)))

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self.jobs.stop(str(request.session_hash))
