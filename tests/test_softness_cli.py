"""Temperatures and rules in one line of text: read, printed, and used by the commands."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from captum_pullback import EXCITATION, SEMANTIC, ExcitationPullback, PullbackAscent, Spread
from captum_pullback.commands import ascend, cli
from captum_pullback.engine.rules import READINGS
from captum_pullback.engine.softness import DEFAULT_TEMPERATURE, Softness
from captum_pullback.study.ascents import trace
from captum_pullback.study.errors import UsageError
from captum_pullback.study.methods import Settings, title
from captum_pullback.study.softness import (
    described,
    read_rules,
    read_temperature,
    rules_text,
    temperature_text,
    temperature_words,
)
from captum_pullback.zoo import networks as zoo
from captum_pullback.zoo.photos import read_photo


def tiny(command: str, *arguments: str) -> int:
    return cli.main([command, "noise.png", "--model", "tiny:rules", *arguments])


# --- as text ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value", "printed"),
    [
        ("0.3", 0.3, "0.3"),
        (" 1e-3 ", 0.001, "0.001"),
        ("inf", math.inf, "inf"),
        ("-0", 0.0, "0"),
        ("1 spread", Spread(1), "1 spread"),
        ("1spread", Spread(1), "1 spread"),
        ("0.5  spread", Spread(0.5), "0.5 spread"),
        ("inf spread", Spread(math.inf), "inf spread"),
        ("1 output", Spread(1, "output"), "1 output"),
        ("0.5output", Spread(0.5, "output"), "0.5 output"),
        (
            "0.3, gelu = 1, attention=2",
            {"": 0.3, "gelu": 1.0, "attention": 2.0},
            "0.3,gelu=1,attention=2",
        ),
        (
            "1 spread,layer1.0=0.3,gelu=0.5spread",
            {"": Spread(1), "layer1.0": 0.3, "gelu": Spread(0.5)},
            "1 spread,layer1.0=0.3,gelu=0.5 spread",
        ),
    ],
)
def test_a_temperature_is_read_and_printed(text: str, value: Any, printed: str) -> None:
    found = read_temperature(text)
    assert found == value
    assert temperature_text(found) == printed
    assert read_temperature(printed) == value


amounts = st.floats(0, allow_nan=False).map(abs)
values = st.one_of(amounts, amounts.map(Spread))
names = st.sampled_from([*READINGS, "layer1", "module:relu", "features.0"])
mappings = st.builds(
    lambda common, others: {"": common, **others},
    values,
    st.dictionaries(names, values, min_size=1),
)


@given(st.one_of(values, mappings))
def test_what_is_printed_is_read_as_the_same(temperature: Any) -> None:
    assert read_temperature(temperature_text(temperature)) == temperature


def test_it_is_rounded_for_people() -> None:
    assert temperature_text({"": 1 / 3, "gelu": Spread(2 / 3)}, 3) == "0.333,gelu=0.667 spread"
    assert title("pullback", Settings(Spread(0.4756828))) == (
        "Excitation pullback, T = 0.476 x spread"
    )
    assert title("saliency", Settings(Spread(1))) == "Gradient"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected a temperature, not ''"),
        ("warm", "from 0 to inf, not 'warm'"),
        ("-1 spread", "from 0 to inf, not '-1 spread'"),
        ("nan spread", "from 0 to inf, not 'nan spread'"),
        ("spread", "from 0 to inf, not 'spread'"),
        ("1 spreads", "from 0 to inf, not '1 spreads'"),
        ("gelu=1", "lacks one for all other gates: put it first, as in '0.3,gelu=1'"),
        ("0.3,1", "NAME=VALUE, separated by commas, not '0.3,1'"),
        ("0.3,gelu", "NAME=VALUE, separated by commas, not '0.3,gelu'"),
        ("0.3,=1", "NAME=VALUE, separated by commas, not '0.3,=1'"),
        ("0.3,gelu=", "NAME=VALUE, separated by commas, not '0.3,gelu='"),
        ("0.3,gelu=1,gelu=2", "has two temperatures for 'gelu'"),
        ("0.3,gelu=x", "from 0 to inf, not 'x'"),
    ],
)
def test_what_is_no_temperature_is_said_in_one_line(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)) as caught:
        read_temperature(text)
    assert "\n" not in str(caught.value)


def test_rules_are_read_and_printed() -> None:
    assert read_rules("semantic") is SEMANTIC
    assert read_rules("excitation") is EXCITATION
    text = "semantic,max_pool=differentiated,relu6=excited,gelu=none"
    mended = {**SEMANTIC, "max_pool": "differentiated", "relu6": "excited", "gelu": None}
    assert read_rules(text) == mended
    assert read_rules("gelu=none") == {**SEMANTIC, "gelu": None}
    assert read_rules("excitation, gelu = held") == {**EXCITATION, "gelu": "held"}
    assert rules_text(None) == rules_text(SEMANTIC) == "semantic"
    assert rules_text(EXCITATION) == "excitation"
    assert sorted(rules_text(mended).split(",")) == sorted(text.split(","))
    assert rules_text({**EXCITATION, "gelu": SEMANTIC["gelu"]}) == "excitation,gelu=held"
    # The readings that a composite has already are no changes.
    assert rules_text(read_rules("semantic,max_pool=held")) == "semantic"


every_reading = st.dictionaries(
    st.sampled_from(list(READINGS)), st.integers(0, 9), min_size=1, max_size=6
).map(
    lambda chosen: {
        kind: [*READINGS[kind], "none"][n % (len(READINGS[kind]) + 1)] for kind, n in chosen.items()
    }
)


@given(st.sampled_from(["semantic", "excitation"]), every_reading)
def test_rules_that_are_printed_are_read_as_the_same(base: str, changes: dict[str, str]) -> None:
    def resolved(text: str) -> dict[str, Any]:
        resolver = Softness(0.3, rules=read_rules(text)).resolver([])
        return {kind: resolver.rules("", kind) for kind in READINGS}

    text = ",".join([base, *(f"{kind}={name}" for kind, name in changes.items())])
    assert resolved(rules_text(read_rules(text))) == resolved(text)
    for kind, name in changes.items():
        assert resolved(text)[kind] is (None if name == "none" else READINGS[kind][name])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected a rule, not ''"),
        ("magic", "begin with excitation or semantic, then readings like gelu=none, not 'magic'"),
        ("SEMANTIC", "not 'SEMANTIC'"),
        ("semantic,gelu", "NAME=VALUE, separated by commas, not 'semantic,gelu'"),
        ("gelu=none,gelu=held", "has two rules for 'gelu'"),
        (
            "gelux=none",
            "no kind of gate is called 'gelux' (did you mean 'gelu'?); choose from relu, ",
        ),
        ("max_pool=average", "no reading 'average'; choose from held, differentiated, "),
        ("relu6=open", "choose from derivative, held, excited, normal, none"),
    ],
)
def test_what_are_no_rules_is_said_in_one_line(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)) as caught:
        read_rules(text)
    assert "\n" not in str(caught.value)


def test_what_is_special_is_described() -> None:
    assert described(Softness(0.3)) is None
    assert described(Softness(Spread(1))) is None
    assert described(Settings({"": 0.3, "gelu": 1}, Spread(0.5), read_rules("gelu=none"))) == (
        "pullback: temperature 0.3,gelu=1; pool temperature 0.5 spread; rules semantic,gelu=none"
    )


# --- used ---------------------------------------------------------------------------------------

ASKED: dict[str, tuple[list[str], dict[str, Any]]] = {
    "spread": (["--temperature", "0.5 spread"], {"temperature": Spread(0.5)}),
    "output": (["--temperature", "0.5 output"], {"temperature": Spread(0.5, "output")}),
    "by kind": (
        ["--temperature", "0.3,gelu=1 spread,max_pool=2"],
        {"temperature": {"": 0.3, "gelu": Spread(1), "max_pool": 2.0}},
    ),
    "pools": (
        ["--pool-temperature", "0.3 spread"],
        {"temperature": DEFAULT_TEMPERATURE, "pool_temperature": Spread(0.3)},
    ),
    "excitation": (
        ["--rules", "excitation"],
        {"temperature": DEFAULT_TEMPERATURE, "rules": EXCITATION},
    ),
    "readings": (
        ["--rules", "semantic,max_pool=differentiated,relu6=excited,gelu=none"],
        {
            "temperature": DEFAULT_TEMPERATURE,
            "rules": {
                **SEMANTIC, "max_pool": "differentiated", "relu6": "excited", "gelu": None,
            },
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ASKED)
def test_explain_uses_them_and_its_arrays_name_them(
    folder: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    options, wanted = ASKED[case]
    code = tiny(
        "explain", *options, "--methods", "pullback,saliency", "--no-scores", "--npz", "m.npz",
        "--target", "2", "--coverage",
    )  # fmt: skip
    printed = capsys.readouterr()
    assert (code, printed.err) == (0, "")
    network = zoo.load("tiny:rules")
    inputs = network.preprocess(read_photo("noise.png"))[None]
    with np.load("m.npz", allow_pickle=False) as maps:
        found = torch.from_numpy(maps["pullback"])
        named = {name: str(maps[name]) for name in ("temperature", "pool_temperature", "rules")}
    temperature = wanted["temperature"]
    assert torch.equal(found, ExcitationPullback(network.model, **wanted).attribute(inputs, 2))
    default = ExcitationPullback(network.model).attribute(inputs, 2)
    assert not torch.allclose(found, default, rtol=1e-3)
    assert read_temperature(named["temperature"]) == temperature
    pools = wanted.get("pool_temperature", temperature)
    assert read_temperature(named["pool_temperature"]) == pools
    assert named["rules"] == rules_text(wanted.get("rules"))
    assert f"Excitation pullback, T = {temperature_words(temperature)} " in printed.out
    line = described(Softness(**wanted))
    assert line is None or f"\n{line}\n" in printed.out
    if case == "readings":
        assert re.search(r"^5 +gelu +1 +derivative kept$", printed.out, re.M)


@pytest.mark.parametrize("case", ASKED)
def test_ascend_uses_them(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    case: str,
) -> None:
    options, wanted = ASKED[case]
    ends = []

    def traced(*given: Any) -> Any:
        steps = trace(*given)
        ends.append(steps[-1].inputs)
        return steps

    monkeypatch.setattr(ascend, "trace", traced)
    code = tiny("ascend", *options, "--targets", "2", "--unbounded", "--steps", "2")
    printed = capsys.readouterr()
    assert (code, printed.err) == (0, "")
    network = zoo.load("tiny:rules")
    inputs = network.preprocess(read_photo("noise.png"))[None]
    ascent = PullbackAscent(network.model, steps=2, relative=True, **wanted)
    assert torch.equal(ends[0], ascent.perturb(inputs, 2))
    default = PullbackAscent(network.model, steps=2, relative=True).perturb(inputs, 2)
    assert not torch.allclose(ends[0], default, rtol=1e-3)
    found = re.search(r"^  tabby.* T = (.*?) {2,}\S+ +\S+ +\S+$", printed.out, re.M)
    assert found
    assert found[1] == temperature_words(wanted["temperature"])
    line = described(Softness(**wanted))
    assert line is None or f"\n{line}\n" in printed.out


@pytest.mark.parametrize(
    ("command", "more"),
    [("explain", ["--top-k", "2"]), ("ascend", ["--targets", "1", "--compare", "--steps", "2"])],
)
def test_an_entry_without_effect_is_said_once(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str, more: list[str]
) -> None:
    assert tiny(command, "--temperature", "0.3,silu=1", *more) == 0
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("captum-pullback: warning: no gate ran under temperature['silu']")


@pytest.mark.parametrize(("unit", "name"), [("spread", "spread"), ("output", "mean output")])
def test_a_fit_in_other_units_is_used(
    folder: Path, capsys: pytest.CaptureFixture[str], unit: str, name: str
) -> None:
    options = ["--methods", "pullback", "--no-scores", "--npz", "m.npz", "--target", "2"]
    assert tiny("explain", "--temperature", f"fit {unit}", "--rules", "excitation", *options) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    head = printed.out.splitlines()[0].split()
    assert head == [unit, "infidelity", "runner-up", "random", "class"]
    best = re.search(r"^ *([\d.e+-]+) .*<- best", printed.out, re.M)
    assert best
    network = zoo.load("tiny:rules")
    inputs = network.preprocess(read_photo("noise.png"))[None]
    with np.load("m.npz") as maps:
        temperature = read_temperature(str(maps["temperature"]))
        assert isinstance(temperature, Spread)
        assert temperature.scale == pytest.approx(float(best[1]), rel=1e-3)
        assert f"T = {temperature.scale:.3g} x {name}" in printed.out
        pullback = ExcitationPullback(network.model, temperature, rules=EXCITATION)
        np.testing.assert_array_equal(maps["pullback"], pullback.attribute(inputs, 2))
