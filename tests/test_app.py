"""The app without its page: answers, the code that reproduces them, jobs, and what is shared."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from app_asking import answered, job, run
from captum.attr import IntegratedGradients, Saliency
from PIL import Image
from snapshot import hooks
from torch import nn

from captum_pullback import (
    DEFAULT_TEMPERATURE,
    ExcitationPullback,
    PullbackAscent,
    fit_temperature,
)
from captum_pullback.app import climbing, code, hidden, keep, work
from captum_pullback.app.jobs import Cancelled, Job, Jobs, random_numbers
from captum_pullback.app.question import METHODS, Loaded, Photo, Question
from captum_pullback.engine.errors import SofteningError
from captum_pullback.study import scores
from captum_pullback.study.ascents import Climb
from captum_pullback.study.errors import UsageError
from captum_pullback.study.methods import Settings
from captum_pullback.study.metrics import disturbances
from captum_pullback.zoo import networks as zoo
from captum_pullback.zoo.network import pixel_bounds
from captum_pullback.zoo.networks import Network, preprocessing
from captum_pullback.zoo.photos import PhotoError

GRACE = Photo("grace_hopper")


def small() -> Network:
    """A network with a module for each kind of layer, on 16 pixels."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(200, 5),
        ).eval()
    return Network(model, ("a", "b", "c", "d", "e"), preprocessing(16), input_size=16)


def plain() -> nn.Module:
    """A network without a gate."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5))


NAME = f"{__name__}:small"


@pytest.fixture
def loaded() -> Loaded:
    network = small()
    layers = hidden.layers(network)
    (outputs,) = layers.pop("")
    return Loaded(network, NAME, layers=layers, outputs=outputs)


def asked(**settings: Any) -> Question:
    return Question(NAME, GRACE, **{"targets": (1,), **settings})


def test_layers_are_those_that_ran(loaded: Loaded) -> None:
    assert hidden.layers(loaded.network) == {
        "0": (6, 14, 14), "1": (6, 14, 14), "2": (6, 7, 7), "3": (8, 5, 5), "4": (8, 5, 5),
        "5": (200,), "6": (5,), "": (5,),
    }  # fmt: skip
    assert hooks(loaded.network.model) == []


def test_the_map_is_the_pullback(loaded: Loaded) -> None:
    answer = answered(loaded, asked(targets=(3, 1), temperature=0.7, pool_temperature=0.0))
    pullback = ExcitationPullback(loaded.network.model, 0.7, pool_temperature=0.0)
    for target, shown in zip((3, 1), answer.maps, strict=True):
        expected = pullback.attribute(answer.seen.inputs, target)[0]
        assert torch.equal(shown.attribution, expected)
    assert answer.counts == (2, 0, 1), "two ReLUs softly, and a pool left hard"
    assert "0 (hard)" in answer.record


def test_the_other_methods_are_captums(loaded: Loaded) -> None:
    inputs = work.look(loaded, GRACE).inputs
    inputs.requires_grad_()
    shown = answered(loaded, asked(method="saliency")).maps[0].attribution
    assert torch.equal(shown, Saliency(loaded.network.model).attribute(inputs, 1, abs=False)[0])
    shown = answered(loaded, asked(method="ig")).maps[0].attribution
    expected = IntegratedGradients(loaded.network.model).attribute(inputs, target=1)[0]
    torch.testing.assert_close(shown, expected.float())
    for method in METHODS:
        settings = Settings(DEFAULT_TEMPERATURE, scores="none")
        expected = scores.score(loaded.network, inputs, 1, method, settings).attribution
        assert torch.equal(answered(loaded, asked(method=method)).maps[0].attribution, expected)


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_the_command_lines(loaded: Loaded, method: str) -> None:
    answer = answered(loaded, asked(method=method))
    shown = work.rated(loaded, answer, job()).maps[0]
    expected = scores.score(
        loaded.network, answer.seen.inputs, 1, method, Settings(DEFAULT_TEMPERATURE)
    )
    assert (shown.infidelity, shown.sensitivity) == (expected.infidelity, expected.sensitivity)


def photos(tmp_path: Path) -> dict[str, Photo]:
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "it's \N{GREEK SMALL LETTER PSI}.png")
    path = str(tmp_path / "it's \N{GREEK SMALL LETTER PSI}.png")
    return {
        "sample": GRACE,
        "file": Photo(Path(path).name, path),
        "pasted": Photo("pasted.png", path, pasted=True),
    }


@pytest.mark.parametrize("kind", ["sample", "file", "pasted"])
@pytest.mark.parametrize("method", METHODS)
def test_the_code_gives_the_arrays_to_the_bit(
    loaded: Loaded, method: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    question = asked(method=method, targets=(4, 0), temperature=0.65, pool_temperature=1.3)
    answer = answered(loaded, replace(question, photo=photos(tmp_path)[kind]))
    keep.arrays_of(answer, tmp_path / "explanation.npz")
    names = run(code.explanation_code(loaded, answer))
    with np.load("explanation.npz") as arrays:
        assert np.array_equal(names["inputs"][0].detach().numpy(), arrays["inputs"])
        found = names["attributions"].detach().numpy()
        assert found.shape == (2, 3, 16, 16)
        assert np.array_equal(found, arrays["attributions"])


HIDDEN = [
    ("neuron", method, layer, everywhere)
    for method in METHODS
    for layer, everywhere in (("3", False), ("1", True), ("6", False))
] + [("layer", method, "4", False) for method in METHODS[:3]]


@pytest.mark.parametrize(("what", "method", "layer", "everywhere"), HIDDEN)
def test_the_code_of_hidden_layers_too(
    loaded: Loaded, what: Any, method: str, layer: str, everywhere: bool, tmp_path: Path
) -> None:
    answer = answered(
        loaded,
        asked(what=what, method=method, layer=layer, channel=2, everywhere=everywhere),
    )
    keep.arrays_of(answer, tmp_path / "explanation.npz")
    names = run(code.explanation_code(loaded, answer))
    with np.load(tmp_path / "explanation.npz") as arrays:
        assert np.array_equal(names["attributions"].detach().numpy(), arrays["attributions"])
        assert np.abs(arrays["attributions"]).max() > 0


@pytest.mark.parametrize("what", ["class", "neuron"])
@pytest.mark.parametrize("bounded", [True, False])
def test_the_code_of_an_ascent(loaded: Loaded, bounded: bool, what: Any, tmp_path: Path) -> None:
    question = asked(targets=(2, 0), what=what, layer="3", channel=1)
    climb = Climb(steps=3, step_size=0.05, radius=0.12, bounded=bounded, compare=True)
    result = climbing.ascend(loaded, work.look(loaded, GRACE), question, climb, job())
    keep.arrays_of_ascent(result, tmp_path / "ascent.npz")
    names = run(code.ascent_code(loaded, result))
    with np.load(tmp_path / "ascent.npz") as arrays:
        for name in ("perturbed", "perturbed_plainly"):
            assert np.array_equal(names[name].numpy(), arrays[name])
    if what == "class":
        ascent = PullbackAscent(
            loaded.network.model, steps=3, step_size=0.05, radius=0.12, relative=True,
            bounds=pixel_bounds(loaded.network) if bounded else None,
        )  # fmt: skip
        ends = result.ends["Along the excitation pullback, T = 1 x mean output"]
        assert torch.equal(ends[1], ascent.perturb(result.seen.inputs, 0)[0])


def test_a_fit_is_fit_temperatures(loaded: Loaded) -> None:
    seen = work.look(loaded, GRACE)
    found = work.fit(loaded, seen, asked(), job())
    expected = fit_temperature(
        loaded.network.model,
        seen.inputs,
        1,
        units="output",
        perturb_func=disturbances.noise_squares_of(loaded.network),
        max_examples_per_batch=32,
        show_progress=False,
    )
    assert found == expected


def test_a_network_of_ones_own_shares_the_weights(loaded: Loaded) -> None:
    own = work.private_copy(loaded.network).model
    pairs = zip(own.parameters(), loaded.network.model.parameters(), strict=True)
    assert all(a is b for a, b in pairs)
    assert not set(own.modules()) & set(loaded.network.model.modules())


def test_threads_do_not_disturb_each_other(loaded: Loaded) -> None:
    """Each with hooks, random numbers and softness of its own, on one network."""
    questions = [
        asked(method="smoothpullback"),
        asked(temperature=2.0),
        asked(what="neuron", layer="3", channel=2),
        asked(what="layer", layer="4", method="ig"),
        asked(method="saliency", targets=(0,)),
    ]
    seen = work.look(loaded, GRACE)
    expected = [work.explain(loaded, seen, q, job()).maps[0].attribution for q in questions]
    differing: list[Question] = []

    def repeat(question: Question, value: torch.Tensor) -> None:
        for _ in range(10):
            found = work.explain(loaded, seen, question, job())
            if not torch.equal(found.maps[0].attribution, value):
                differing.append(question)

    before = torch.get_rng_state()
    pairs = zip(questions, expected, strict=True)
    threads = [threading.Thread(target=repeat, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not differing
    assert torch.equal(before, torch.get_rng_state())


def until_stopped(job: Job[Any]) -> None:
    while True:
        time.sleep(0.005)
        job.check()


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    jobs = Jobs()
    yield jobs
    for session in ("one", "two"):
        jobs.stop(session)


def test_a_new_job_stops_the_one_before_it_in_its_lane(jobs: Jobs) -> None:
    ticket = jobs.enter("one", "explain")
    first = jobs.start(ticket, until_stopped)
    other_lane = jobs.start(jobs.enter("one", "ascend"), until_stopped)
    other_person = jobs.start(jobs.enter("two", "explain"), until_stopped)
    last = jobs.start(jobs.enter("one", "explain"), lambda job: "done")
    with pytest.raises(Cancelled):
        first.result()
    with pytest.raises(Cancelled):  # who was overtaken starts nothing more
        jobs.start(ticket, until_stopped).result()
    assert last.result() == "done"
    assert not other_lane.wait(0.05)
    jobs.stop("one")
    with pytest.raises(Cancelled):
        other_lane.result()
    assert not other_person.wait(0.05)


def test_a_job_raises_what_its_work_raised(jobs: Jobs) -> None:
    def fail(job: Job[Any]) -> None:
        raise PhotoError("no photograph")

    with pytest.raises(PhotoError, match="no photograph"):
        jobs.start(jobs.enter("one", "explain"), fail).result()


@pytest.mark.parametrize("method", METHODS)
def test_work_stops_in_the_middle(loaded: Loaded, method: str) -> None:
    """Softened or not, and while it waits for its turn with the random numbers."""
    seen = work.look(loaded, GRACE)
    done = job()
    answer = work.explain(loaded, seen, asked(method=method), done)
    assert done.progress[0] == 1
    done.stop()
    with pytest.raises(Cancelled):
        work.explain(loaded, seen, asked(method=method), done)
    with random_numbers(job()), pytest.raises(Cancelled):
        work.rated(loaded, answer, done)


def test_progress_runs_from_none_to_all(loaded: Loaded) -> None:
    answer, seen = answered(loaded, asked()), []

    class Watched(Job[Any]):
        def advance(self, examples: float) -> None:
            super().advance(examples)
            seen.append(self.progress[0])

    work.rated(loaded, answer, Watched(lambda job: None))
    assert seen == sorted(seen)
    assert 0 < seen[0] < seen[-1] == 1


def test_what_cannot_be_done_is_said(loaded: Loaded, tmp_path: Path) -> None:
    seen = work.look(loaded, GRACE)
    for question, message in (
        (asked(targets=()), "choose a class"),
        (asked(what="neuron"), "choose a layer"),
        (asked(what="neuron", layer="3", channel=8), "its channels are 0 to 7"),
        (asked(what="layer", layer="4", method="smoothpullback"), "choose another method"),
    ):
        with pytest.raises(UsageError, match=message):
            work.explain(loaded, seen, question, job())
    network = replace(small(), model=plain().eval())
    with pytest.raises(SofteningError, match="nothing was softened"):
        work.explain(Loaded(network), seen, asked(), job())
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 no photograph")
    with pytest.raises(PhotoError) as caught:
        work.look(loaded, Photo("broken.jpg", str(broken)))
    assert str(caught.value).startswith("broken.jpg: ")
    assert str(tmp_path) not in str(caught.value)


def test_the_embedded_networks_code_is_short() -> None:
    """What a newcomer sees first."""
    network = zoo.load()
    loaded = Loaded(network, layers=hidden.layers(network))
    question = Question("embedded", GRACE, targets=(12,), temperature=1.0)
    answer = work.explain(loaded, work.look(loaded, GRACE), question, job())
    source = code.explanation_code(loaded, answer)
    assert len(source.splitlines()) < 16
    assert "targets = [12]  # military uniform" in source
    assert torch.equal(run(source)["attributions"][0], answer.maps[0].attribution)
