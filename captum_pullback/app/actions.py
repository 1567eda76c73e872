"""What the page's controls do. Nothing here belongs to one person: that is in the page's states."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from captum_pullback.app import climbing, code, keep, work
from captum_pullback.app.cards import answers_card, ascent_card, predictions_card, progress_card
from captum_pullback.app.climbing import Ascended
from captum_pullback.app.jobs import Cancelled, Job, Jobs, Ticket
from captum_pullback.app.question import Climb, Loaded, Photo, Question
from captum_pullback.app.work import Explanation, Seen
from captum_pullback.commands.terminal import UsageError
from captum_pullback.figures.panels import Method
from captum_pullback.study.report import class_name
from captum_pullback.zoo.photos import PhotoError

__all__ = ["Actions"]

Result = TypeVar("Result")
#: For each part of the page that changes, its value.
Changes = dict[Any, Any]
_PATIENCE, _TICK = 0.4, 0.2


class Actions:
    """The page's event handlers.

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

    def choices(self, loaded: Loaded) -> list[tuple[str, int]]:
        """The classes, for the search."""
        count = len(loaded.network.classes) or loaded.outputs
        return [(class_name(loaded.network, index), index) for index in range(count)]

    def layer_choices(self, loaded: Loaded) -> list[tuple[str, str]]:
        """The layers, with their shapes."""
        times = " \N{MULTIPLICATION SIGN} "
        return [(f"{n} ({times.join(map(str, s))})", n) for n, s in loaded.layers.items()]

    def last_layer(self, loaded: Loaded) -> str | None:
        """The last that gives pictures of more than a pixel."""
        names = [name for name, s in loaded.layers.items() if len(s) == 3 and s[1] > 1]
        return names[-1] if names else next(iter(loaded.layers), None)

    def look_first(self, network: str) -> Changes:
        """A sample, so that a newcomer sees at once what this is."""
        return self._look(network, next(iter(self.samples.values())))

    def look_at_sample(self, network: str, event: gr.EventData) -> Changes:
        """The sample that was clicked on."""
        return self._look(network, self.samples[event.pick])

    def look_at_file(self, path: str | None, network: str) -> Changes:
        """A file that was given."""
        if path is None:
            raise gr.Error("no file arrived", print_exception=False)
        name = Path(path).name
        return self._look(network, Photo(name, path, pasted=name.startswith("pasted.")))

    def change_network(self, seen: Seen | None, network: str) -> Changes:
        """The same photograph, seen by another network."""
        loaded = self.networks[network]
        photo = next(iter(self.samples.values())) if seen is None else seen.photo
        return self._look(network, photo) | {
            self.parts["layer"]: gr.update(
                choices=self.layer_choices(loaded), value=self.last_layer(loaded)
            ),
            self.parts["temperature"]: loaded.temperature,
        }

    def pick_class(self, event: gr.EventData) -> Any:
        """The prediction that was clicked on."""
        return [int(event.pick)]

    def show_controls(self, method: str, follow: bool, what: str) -> list[Any]:
        """Only those that do something."""
        return [
            gr.update(visible=shown)
            for shown in (
                "pullback" in method, not follow, what != "neuron", what != "class",
                what == "neuron", what == "neuron",
            )
        ]  # fmt: skip

    def explain(self, request: gr.Request, *given: Any) -> Iterator[Changes]:
        """The maps, unless they are there already; then the figures that are not yet."""
        *settings, show, before, pinned, turn = given
        seen, question = self._question(*settings)
        ticket = self.jobs.enter(str(request.session_hash), "explain", int(turn))
        loaded = self.networks[question.network]
        known = before is not None and before.question == question
        answer = yield from self._follow(
            ticket, lambda job: before if known else work.explain(loaded, seen, question, job)
        )
        if answer is None:
            return
        yield {
            self.parts["answer"]: answer,
            self.parts["answers"]: self._answers(answer, pinned, show, pending=True),
            self.parts["answer_code"]: code.explanation_code(loaded, answer),
            self.parts["status"]: "",
        }
        # One that was pinned early has none yet.
        for each in (answer,) if answer is pinned else (answer, pinned):
            if each is None or each.rated:
                continue
            full = yield from self._follow(ticket, self._rating(each))
            if full is None:
                return
            # Only what has changed: somebody may have pinned meanwhile.
            changes: Changes = {self.parts["status"]: ""}
            if each is answer:
                changes[self.parts["answer"]] = full
            if each is pinned:
                changes[self.parts["pinned"]] = full
            answer, pinned = (full if each is one else one for one in (answer, pinned))
            changes[self.parts["answers"]] = self._answers(answer, pinned, show, pending=True)
            yield changes

    def _rating(self, answer: Explanation) -> Callable[[Job[Explanation]], Explanation]:
        loaded = self.networks[answer.question.network]
        return lambda job: work.rated(loaded, answer, job)

    def fit(self, request: gr.Request, *given: Any) -> Iterator[Changes]:
        """The temperature of the least infidelity, into the slider."""
        *settings, turn = given
        seen, question = self._question(*settings)
        ticket = self.jobs.enter(str(request.session_hash), "explain", int(turn))
        loaded = self.networks[question.network]
        fit = yield from self._follow(ticket, lambda job: work.fit(loaded, seen, question, job))
        if fit is not None:
            best = float(fit.temperature)  # type: ignore[arg-type]  # one number, for all gates
            plain = dict(fit.tried)[0.0]
            gr.Info(
                f"Infidelity {fit.infidelity:.3g} at T = {best:.3g}"
                f"{', the limit of the search' * fit.at_limit}; the plain gradient has "
                f"{plain:.3g}." + (" The slider ends at 5." if best > 5 else ""),
                title="Fitted",
            )
            yield {
                self.parts["temperature"]: round(min(best, 5.0), 2),
                self.parts["status"]: "",
            }

    def ascend(self, request: gr.Request, *given: Any) -> Iterator[Changes]:
        """What the classes ask for, drawn on the photograph."""
        *settings, steps, size, radius, bounded, compare, turn = given
        seen, question = self._question(*settings)
        ticket = self.jobs.enter(str(request.session_hash), "ascend", int(turn))
        loaded = self.networks[question.network]
        climb = Climb(int(steps), float(size), float(radius), bool(bounded), bool(compare))
        result = yield from self._follow(
            ticket, lambda job: climbing.ascend(loaded, seen, question, climb, job)
        )
        if result is not None:
            yield {
                self.parts["ascents"]: ascent_card(loaded, result),
                self.parts["ascent"]: result,
                self.parts["ascent_code"]: code.ascent_code(loaded, result),
                self.parts["status"]: "",
            }

    def pin(
        self, answer: Explanation | None, pinned: Explanation | None
    ) -> tuple[Explanation | None, str]:
        """Keeps the answer beside those that follow, or lets it go."""
        kept = answer if pinned is None else None
        return kept, "Pin to compare" if kept is None else "Unpin"

    def stop(
        self,
        answer: Explanation | None,
        pinned: Explanation | None,
        show: Method,
        request: gr.Request,
    ) -> tuple[str, str]:
        """Stops what is being computed for this page."""
        self.leave(request)
        return "" if answer is None else self._answers(answer, pinned, show), ""

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self.jobs.stop(str(request.session_hash))

    def keep(self, kind: str) -> Callable[..., str]:
        """Writes the explanation on the screen: as ``png``, ``npz`` or ``py``."""

        def write(answer: Explanation | None, pinned: Explanation | None, show: Method) -> str:
            if answer is None:
                raise gr.Error("there is no explanation yet", print_exception=False)
            path = _fresh(f"explanation.{kind}")
            if kind == "npz":
                keep.arrays_of(answer, path)
            elif kind == "py":
                loaded = self.networks[answer.question.network]
                path.write_text(code.explanation_code(loaded, answer), encoding="utf-8")
            else:
                keep.figure_of(self._side_by_side(answer, pinned), show, path)
            return str(path)

        return write

    def keep_ascent(self, kind: str) -> Callable[..., str]:
        """The same for the ascent."""

        def write(result: Ascended | None) -> str:
            if result is None:
                raise gr.Error("there is no ascent yet: click on Ascend", print_exception=False)
            path, loaded = _fresh(f"ascent.{kind}"), self.networks[result.question.network]
            if kind == "npz":
                keep.arrays_of_ascent(result, path)
            elif kind == "py":
                path.write_text(code.ascent_code(loaded, result), encoding="utf-8")
            else:
                keep.figure_of_ascent(loaded, result, path)
            return str(path)

        return write

    def _look(self, network: str, photo: Photo) -> Changes:
        loaded = self.networks[network]
        try:
            seen = work.look(loaded, photo)
        except (PhotoError, UsageError, MemoryError) as error:
            raise gr.Error(
                str(error), title="This photograph cannot be used", print_exception=False
            ) from error
        return {
            self.parts["seen"]: seen,
            self.parts["predictions"]: predictions_card(loaded, seen),
            self.parts["targets"]: gr.update(
                choices=self.choices(loaded), value=[int(seen.logits.argmax())]
            ),
        }

    def _question(
        self, seen: Seen | None, what: Any, targets: list[int], method: str, temperature: float,
        follow: bool, pool: float, layer: str | None, channel: float | None, everywhere: bool,
    ) -> tuple[Seen, Question]:  # fmt: skip
        if seen is None:
            raise gr.Error("choose a photograph first", print_exception=False)
        return seen, Question(
            seen.network, seen.photo, what, tuple(targets or ()), method, float(temperature or 0),
            None if follow else float(pool or 0), layer or "", int(channel or 0), everywhere,
        )  # fmt: skip

    def _side_by_side(
        self, answer: Explanation, pinned: Explanation | None
    ) -> list[tuple[Loaded, Explanation]]:
        shown = [answer] if pinned is None else [pinned, answer]
        return [(self.networks[each.question.network], each) for each in shown]

    def _answers(
        self, answer: Explanation, pinned: Explanation | None, show: Method, pending: bool = False
    ) -> str:
        return answers_card(self._side_by_side(answer, pinned), show, pending)

    def _follow(
        self, ticket: Ticket, run: Callable[[Job[Result]], Result]
    ) -> Generator[Changes, None, Result | None]:
        """Runs a job, yields its progress if it takes long, and returns what came out, or None."""
        status = self.parts["status"]
        job = self.jobs.start(ticket, run)
        wait = _PATIENCE
        try:
            while not job.wait(wait):
                if job.stopped:  # whoever stopped it has cleared the status, or shows another
                    return None
                yield {status: progress_card(*job.progress)}
                wait = _TICK
            return job.result()
        except Cancelled:
            return None
        except GeneratorExit:  # the page was closed
            job.stop()
            raise
        except Exception as error:
            yield {status: ""}
            known = isinstance(error, (UsageError, RuntimeError, ValueError, MemoryError))
            raise gr.Error(
                str(error) or type(error).__name__, title="This did not work",
                print_exception=not known,
            ) from error  # fmt: skip


def _fresh(name: str) -> Path:
    """A file of this name in a new folder, inside the app's own, which goes at its end."""
    return Path(tempfile.mkdtemp(dir=gr.utils.get_upload_folder())) / name
