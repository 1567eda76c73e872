"""Rules and the temperature's unit in the app: maps, their code, their files and their titles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from app_asking import answered, job, run
from torch import Tensor, nn

from captum_pullback import (
    EXCITATION,
    SEMANTIC,
    ExcitationPullback,
    LayerExcitationPullback,
    NeuronExcitationPullback,
    PullbackAscent,
    Spread,
    fit_temperature,
)
from captum_pullback.app import climbing, code, hidden, keep, work
from captum_pullback.app.question import Loaded, Photo, Question
from captum_pullback.study import scores
from captum_pullback.study.ascents import Climb
from captum_pullback.study.methods import Settings
from captum_pullback.study.metrics import disturbances
from captum_pullback.zoo.networks import Network, preprocessing

GRACE = Photo("grace_hopper")
CUSTOM = "semantic,max_pool=differentiated,gelu=none"
RULES = {
    "semantic": SEMANTIC,
    "excitation": EXCITATION,
    CUSTOM: {**SEMANTIC, "max_pool": "differentiated", "gelu": None},
}


def mixed() -> Network:
    """A network that every composite pulls back in another way."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.GELU(), nn.GroupNorm(2, 6), nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(200, 5),
        ).eval()  # fmt: skip
    return Network(model, ("a", "b", "c", "d", "e"), preprocessing(16), input_size=16)


NAME = f"{__name__}:mixed"


@pytest.fixture
def loaded() -> Loaded:
    network = mixed()
    layers = hidden.layers(network)
    (outputs,) = layers.pop("")
    return Loaded(network, NAME, layers=layers, outputs=outputs)


def asked(**settings: Any) -> Question:
    return Question(NAME, GRACE, **{"targets": (1,), **settings})


def direct(loaded: Loaded, inputs: Tensor, what: str, *softness: Any) -> Tensor:
    """The map without the app."""
    heat, pool, rules = softness
    model = loaded.network.model
    options = {"pool_temperature": pool, "rules": rules}
    if what == "layer":
        return LayerExcitationPullback(model, model[0], heat, **options).attribute(inputs, 1)
    if what == "neuron":
        method = NeuronExcitationPullback(model, model[4], heat, **options)
        return method.attribute(inputs, (2, slice(None), slice(None)))
    return ExcitationPullback(model, heat, **options).attribute(inputs, 1)


SOFT = [
    (heat, pool, rules)
    for rules in RULES
    for heat, pool in ((0.7, None), (Spread(0.7), None), (Spread(0.7), Spread(2.0)))
]


@pytest.mark.parametrize("what", ["class", "neuron", "layer"])
def test_rules_and_temperature_reach_the_map(loaded: Loaded, what: Any) -> None:
    """Each of them, so that no two maps are the same."""
    layer = {"class": "", "neuron": "4", "layer": "0"}[what]
    maps = []
    for heat, pool, rules in SOFT:
        question = asked(
            what=what, layer=layer, channel=2, everywhere=True, temperature=heat,
            pool_temperature=pool, rules=rules,
        )  # fmt: skip
        answer = answered(loaded, question)
        shown = answer.maps[0].attribution
        expected = direct(loaded, answer.seen.inputs, what, heat, pool, RULES[rules])
        assert torch.equal(shown, expected[0])
        maps.append(shown)
    pairs = [(a, b) for i, a in enumerate(maps) for b in maps[:i]]
    assert not any(torch.equal(a, b) for a, b in pairs)


def test_what_is_counted_is_of_these_rules(loaded: Loaded) -> None:
    semantic, excitation = (answered(loaded, asked(rules=r)) for r in ("semantic", "excitation"))
    assert "gelu" in excitation.record
    assert semantic.counts == (3, 1, 0), "GELU, the pool and ReLU; the norm is held"
    assert excitation.counts == (2, 0, 2), "GELU and the norm keep their derivatives"


def test_scores_are_of_the_same_rules_and_temperature(loaded: Loaded) -> None:
    question = asked(temperature=Spread(1.0), rules="excitation")
    answer = answered(loaded, question)
    shown = work.rated(loaded, answer, job()).maps[0]
    settings = Settings(Spread(1.0), rules=EXCITATION)
    expected = scores.score(loaded.network, answer.seen.inputs, 1, "pullback", settings)
    assert (shown.infidelity, shown.sensitivity) == (expected.infidelity, expected.sensitivity)
    other = scores.score(loaded.network, answer.seen.inputs, 1, "pullback", Settings(1.0))
    assert shown.infidelity != other.infidelity


@pytest.mark.parametrize("unit", ["input", "spread", "output"])
def test_a_fit_is_of_the_same_rules_and_unit(loaded: Loaded, unit: Any) -> None:
    seen = work.look(loaded, GRACE)
    heat = 0.3 if unit == "input" else Spread(0.3, unit)
    found = work.fit(loaded, seen, asked(temperature=heat, rules="excitation"), job())
    expected = fit_temperature(
        loaded.network.model, seen.inputs, 1, rules=EXCITATION, units=unit,
        perturb_func=disturbances.noise_squares_of(loaded.network), max_examples_per_batch=32,
        show_progress=False,
    )  # fmt: skip
    assert found == expected
    assert getattr(found.temperature, "unit", "input") == unit


@pytest.mark.parametrize("method", ["pullback", "smoothpullback"])
@pytest.mark.parametrize(("heat", "pool", "rules"), SOFT)
def test_the_code_gives_the_arrays_to_the_bit(
    loaded: Loaded, heat: Any, pool: Any, rules: str, method: str, tmp_path: Path
) -> None:
    answer = answered(
        loaded, asked(method=method, temperature=heat, pool_temperature=pool, rules=rules)
    )
    keep.arrays_of(answer, tmp_path / "explanation.npz")
    names = run(code.explanation_code(loaded, answer))
    with np.load(tmp_path / "explanation.npz") as arrays:
        assert np.array_equal(names["attributions"].detach().numpy(), arrays["attributions"])


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"temperature": 0.5}, "(network.model, temperature=0.5)"),
        ({"temperature": Spread(1)}, "(network.model, temperature=Spread(1.0))"),
        (
            {"temperature": Spread(1), "pool_temperature": 0.0, "rules": "excitation"},
            "temperature=Spread(1.0), pool_temperature=0.0, rules=EXCITATION)",
        ),
        ({"rules": CUSTOM}, "rules={**SEMANTIC, 'max_pool': 'differentiated', 'gelu': None})"),
    ],
)
def test_the_code_says_what_is_not_the_default(
    loaded: Loaded, settings: dict[str, Any], text: str
) -> None:
    source = code.explanation_code(loaded, answered(loaded, asked(**settings)))
    assert text in source
    for name in ("Spread", "EXCITATION", "SEMANTIC"):
        assert source.count(name) in (0, 2), "imported where it is used, and only there"


@pytest.mark.parametrize(("heat", "pool", "rules"), SOFT)
def test_ascents(loaded: Loaded, heat: Any, pool: Any, rules: str, tmp_path: Path) -> None:
    question = asked(temperature=heat, pool_temperature=pool, rules=rules)
    climb = Climb(steps=3, bounded=False, compare=True)
    result = climbing.ascend(loaded, work.look(loaded, GRACE), question, climb, job())
    ascent = PullbackAscent(
        loaded.network.model, heat, pool_temperature=pool, rules=RULES[rules], steps=3,
        step_size=0.1, radius=0.5, relative=True,
    )  # fmt: skip
    steps = ascent.trace(result.seen.inputs, 1)
    along = next(iter(result.ends))
    assert torch.equal(result.ends[along][0], steps[-1].inputs[0])
    assert torch.equal(result.scores[along][0], torch.cat([step.score for step in steps]))
    keep.arrays_of_ascent(result, tmp_path / "ascent.npz")
    names = run(code.ascent_code(loaded, result))
    with np.load(tmp_path / "ascent.npz") as arrays:
        for name in ("perturbed", "perturbed_plainly"):
            assert np.array_equal(names[name].numpy(), arrays[name])
        assert str(arrays["rules"]) == rules


@pytest.mark.parametrize(
    ("settings", "title"),
    [
        ({}, "Excitation pullback, T = 1 x mean output"),
        ({"temperature": Spread(1.0)}, "Excitation pullback, T = 1 x spread"),
        (
            {"temperature": Spread(1.0), "pool_temperature": Spread(2.0), "rules": "excitation"},
            "Excitation pullback, T = 1 x spread, pooling 2 x spread, rules excitation",
        ),
        ({"method": "saliency", "rules": "excitation"}, "Gradient"),
    ],
)
def test_titles_and_files_name_what_is_not_the_default(
    loaded: Loaded, settings: dict[str, Any], title: str, tmp_path: Path
) -> None:
    answer = answered(loaded, asked(**settings))
    assert keep.method_title(answer) == title
    keep.arrays_of(answer, tmp_path / "explanation.npz")
    heat = "1 spread" if "temperature" in settings else "1 output"
    with np.load(tmp_path / "explanation.npz") as arrays:
        assert str(arrays["temperature"]) == heat
        assert str(arrays["pool_temperature"]) == (
            "2 spread" if "pool_temperature" in settings else heat
        )
        assert str(arrays["rules"]) == settings.get("rules", "semantic")
