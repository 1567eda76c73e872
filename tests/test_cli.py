"""The command line from outside: what it writes, what it says, and what it leaves behind."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import ROOT, Terminal, command, new_files
from PIL import Image

import captum_pullback
from captum_pullback import DEFAULT_TEMPERATURE
from captum_pullback.commands import cli, explain
from captum_pullback.study import scores
from captum_pullback.study.methods import METHODS
from captum_pullback.study.softness import temperature_text
from captum_pullback.zoo import networks as zoo
from captum_pullback.zoo import photos, statefiles


def tiny(*arguments: str) -> int:
    """The command line in this process, on the tiny network."""
    return cli.main(["explain", "--model", "tiny:network", *arguments])


def test_the_default_run_ends_in_a_picture(folder: Path) -> None:
    done = command("explain", "--coverage")
    assert (done.returncode, done.stderr) == (0, "")
    assert new_files(folder) == {"explanation.png"}
    with Image.open("explanation.png") as image:
        picture = np.asarray(image.convert("RGB")).astype(int)
    assert picture.shape[1] > 2.5 * picture.shape[0] > 1000
    # the photograph, at the left, is many-coloured; each of the three maps has white, red and blue
    for quarter in np.array_split(picture, 4, axis=1)[1:]:
        assert (quarter.min(axis=-1) == 255).mean() > 0.2
        assert (quarter[..., 0] - quarter[..., 2] > 100).any()
        assert (quarter[..., 2] - quarter[..., 0] > 100).any()
    assert "military uniform" in done.stdout
    assert "wrote explanation.png" in done.stdout
    for title in ("Gradient", "Integrated Gradients", "Excitation pullback, T = 1 x mean output"):
        row = re.search(rf"^  {title} +([\d.e+-]+) +([\d.e+-]+) +[\d.]+ m?s$", done.stdout, re.M)
        assert row, f"no row of figures for {title}"
        assert float(row[1]) > 0
        assert float(row[2]) > 0
    assert "layer4.1" in done.stdout, "the record names what was softened"


def test_the_arrays_are_the_attributions(folder: Path) -> None:
    from captum_pullback.attribution import ExcitationPullback

    code = tiny(
        "noise.png", "other.png", "--target", "espresso", "--target", "1", "--top-k", "1",
        "--methods", "pullback,saliency", "--temperature", "0.7", "--pool-temperature", "0.2",
        "--npz", "maps.npz",
    )  # fmt: skip
    assert code == 0
    network = zoo.load("tiny:network")
    with np.load("maps.npz", allow_pickle=False) as maps:
        assert set(maps["targets"][:2]) == {3, 1}
        assert set(maps["photographs"]) == {"noise.png", "other.png"}
        for i, name in enumerate(maps["photographs"]):
            inputs = network.preprocess(photos.read_photo(name))[None]
            np.testing.assert_array_equal(maps["inputs"][i], inputs[0])
            logits = network.model(inputs)
            np.testing.assert_allclose(maps["probabilities"][i], logits.softmax(1)[0].detach())
            pullback = ExcitationPullback(network.model, 0.7, pool_temperature=0.2)
            expected = pullback.attribute(inputs, target=int(maps["targets"][i]))
            np.testing.assert_array_equal(maps["pullback"][i], expected[0].numpy())
            inputs.requires_grad_()
            score = network.model(inputs)[0, int(maps["targets"][i])]
            gradient = torch.autograd.grad(score, inputs)[0][0]
            np.testing.assert_array_equal(maps["saliency"][i], gradient.numpy())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--top-k", "2"], None),
        ([], None),
        (["--target", "goldfish,tabby"], [1, 2]),
        (["--target", "tench, Tinca tinca"], [0]),
        (["--target", "Tench, tinca tinca", "--target", "4"], [0, 4]),
        (["--target", "4,0", "--target", "tiger"], [4, 0]),
    ],
)
def test_targets(folder: Path, options: list[str], expected: list[int] | None) -> None:
    assert (
        tiny("noise.png", "--no-scores", "--methods", "saliency", "--npz", "m.npz", *options) == 0
    )
    with np.load("m.npz") as maps:
        if expected is None:
            order = np.argsort(-maps["probabilities"][0])
            expected = order[: len(maps["targets"])].tolist()
            assert len(expected) == (2 if options else 1)
        assert maps["targets"].tolist() == expected


@pytest.mark.parametrize("suffix", ["png", "PDF", "svg"])
def test_figures_by_suffix(folder: Path, suffix: str) -> None:
    assert tiny("noise.png", "--no-scores", "--out", f"figure.{suffix}") == 0
    start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix.lower()]
    assert (folder / f"figure.{suffix}").read_bytes().startswith(start)
    if suffix == "svg":
        assert "Integrated Gradients</text>" in (folder / "figure.svg").read_text()


ZENNIT = {"epsilonplusflat", "epsilongammabox"}


@pytest.mark.parametrize("show", ["heat_map", "blended_heat_map", "colors"])
def test_every_method_in_every_style(
    folder: Path, capsys: pytest.CaptureFixture[str], show: str
) -> None:
    # zennit and lxt are extras': what needs them is left out, each with a line.
    lacks = {name for name in ("zennit", "lxt") if importlib.util.find_spec(name) is None}
    absent = (ZENNIT if "zennit" in lacks else set()) | ({"attn_lrp"} if lacks else set())
    assert tiny("noise.png", "--methods", ",".join(METHODS), "--show", show) == 0
    printed = capsys.readouterr()
    warnings = printed.err.splitlines()
    assert len(warnings) == len(absent)
    assert all(re.search("(zennit|lxt) is not installed", warning) for warning in warnings)
    for name, method in METHODS.items():
        if name not in absent:
            assert method.title in printed.out


def test_the_fitted_temperature_is_the_one_that_is_used(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from captum_pullback.attribution import ExcitationPullback

    options = ("--temperature", "fit", "--methods", "pullback", "--npz", "m.npz")
    assert tiny("noise.png", "other.png", *options) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    best = re.search(
        r"^ *([\d.]+) +[-\d. ]+(\(.*\))? +<- best(, at the limit.*)?$", printed.out, re.M
    )
    assert best
    assert f"T = {float(best[1]):.3g}" in printed.out
    with np.load("m.npz") as maps:
        pullback = ExcitationPullback(zoo.load("tiny:network").model, float(best[1]))
        inputs = torch.from_numpy(maps["inputs"])
        expected = pullback.attribute(inputs, target=maps["targets"].tolist())
        np.testing.assert_allclose(maps["pullback"], expected, rtol=1e-3, atol=1e-7)


def test_the_default_temperature_is_the_packages(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("noise.png", "--no-scores", "--methods", "pullback", "--npz", "maps.npz")
    assert tiny(*arguments) == 0
    assert "T = 1 x mean output " in capsys.readouterr().out
    with np.load("maps.npz") as maps:
        pullback = captum_pullback.ExcitationPullback(zoo.load("tiny:network").model)
        expected = pullback.attribute(torch.from_numpy(maps["inputs"]), maps["targets"].tolist())
        np.testing.assert_allclose(maps["pullback"], expected, rtol=1e-3, atol=1e-7)
    with pytest.raises(SystemExit):
        cli.main(["explain", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"(default: {temperature_text(DEFAULT_TEMPERATURE)})" in text
    assert tiny(*arguments, "--temperature", "0.5") == 0
    assert "T = 0.5 " in capsys.readouterr().out


def test_names_of_the_methods_are_those_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["explain", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name in METHODS:
        assert re.search(rf"\b{name}\b", text)


def test_good_photographs_come_out_beside_bad_ones(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny("broken.jpg", "noise.png", "missing.png", "--npz", "maps.npz") == 2
    printed = capsys.readouterr()
    assert [line.split(": ")[:3] for line in printed.err.splitlines()] == [
        ["captum-pullback", "error", "broken.jpg"],
        ["captum-pullback", "error", "missing.png"],
    ]
    assert new_files(folder) == {"explanation.png", "maps.npz"}
    with np.load("maps.npz") as maps:
        assert maps["photographs"].tolist() == ["noise.png"]
    assert "noise.png: " in printed.out


def test_a_method_that_cannot_leaves_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", "tiny:linear", "--methods", "guidedbackprop,saliency,pullback"]
    assert tiny("noise.png", "other.png", *arguments, "--npz", "m.npz") == 0
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    start = "captum-pullback: warning: noise.png: "
    assert lines[0].startswith(f"{start}Guided backprop of tiny:linear is left out: ")
    assert "nn.ReLU" in lines[0]
    assert lines[1].startswith(f"{start}Excitation pullback of tiny:linear is left out: ")
    assert len(lines) == 2, "each reason is said once"
    assert printed.out.count("Gradient ") == 2
    assert "Guided backprop" not in printed.out
    with np.load("m.npz") as maps:
        assert np.isfinite(maps["saliency"]).all()
        assert not {"guidedbackprop", "pullback"} & set(maps)


def test_a_method_that_fails_on_one_photograph_explains_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = explain.attributed

    def attributed(network, inputs, target, method, settings):
        scored = whole(network, inputs, target, method, settings)
        if method == "ig" and not calls:
            calls.append(method)
            scored.attribution[0, 0, 0] = torch.nan
        return scored

    calls: list[str] = []
    monkeypatch.setattr(explain, "attributed", attributed)
    assert tiny("noise.png", "other.png", "--methods", "ig,saliency", "--npz", "m.npz") == 0
    printed = capsys.readouterr()
    assert "noise.png: Integrated Gradients of tiny:network is left out: " in printed.err
    assert printed.out.count("Integrated Gradients") == 1
    with np.load("m.npz") as maps:
        assert np.isnan(maps["ig"][0]).all()
        assert np.isfinite(maps["ig"][1]).all()


def test_the_figure_is_there_before_the_scores(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(explain, "rate", interrupted)
    assert tiny("noise.png", "--npz", "m.npz") == 130
    assert new_files(folder) == {"explanation.png", "m.npz"}


def test_scores_quick_full_and_none(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def printed(*arguments: str) -> str:
        assert tiny("noise.png", "--methods", "saliency", *arguments) == 0
        return re.sub(r" *[\d.]+ m?s$", "", capsys.readouterr().out, flags=re.M)

    full = printed("--scores", "full")
    assert printed() == printed("--scores", "quick") == full
    unscored = printed("--scores", "none")
    assert unscored == printed("--no-scores")
    assert not re.search(r"infidelity|max-sensitivity| -( |$)", unscored, re.M)
    assert re.search(r"^  for \S+ .* time$", unscored, re.M)
    assert re.search(r"^  Gradient$", unscored, re.M)
    monkeypatch.setattr(scores, "BUDGET", 0.0)
    assert "no max-sensitivity; --scores full: all" in printed()
    assert printed("--scores", "full") == full


def test_names_of_files_that_would_break_a_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "two\nlines $x^2$ \udcff.png"
    os.rename("noise.png", name)
    assert tiny(name, "a\nb.png", "--no-scores", "--out", "figure.svg") == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "two?lines $x^2$ ?.png: " in printed.out
    assert "two?lines $x^2$ ?.png" in (folder / "figure.svg").read_text()


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("soft", r"espresso 2\d\.\d %|tench.*: .* \d\d\.\d %"),
        ("labels", r"\d\d\.\d %, .* \d\d\.\d %, .* \d\d\.\d %"),
        ("one", r"^noise\.png: tench, Tinca tinca score -?\d+\.\d+$"),
    ],
)
def test_scores_are_shown_as_what_they_are(
    folder: Path, capsys: pytest.CaptureFixture[str], model: str, shown: str
) -> None:
    arguments = ("--model", f"tiny:{model}", "--no-scores", "--methods", "saliency", "--top-k", "5")
    assert tiny("noise.png", *arguments, "--npz", "m.npz") == 0
    out = capsys.readouterr().out
    assert re.search(shown, out, re.M), out
    network = zoo.load(f"tiny:{model}")
    with torch.no_grad():
        raw = network.model(network.preprocess(photos.read_photo("noise.png"))[None])[0].numpy()
    with np.load("m.npz") as arrays:
        np.testing.assert_allclose(arrays["scores"][0], raw, rtol=1e-6)
        if model == "one":
            assert np.isnan(arrays["probabilities"]).all()
        else:
            np.testing.assert_allclose(arrays["probabilities"][0], raw, rtol=1e-6)
            best = int(raw.argmax())
            assert f"{network.classes[best]} {100 * raw[best]:.1f} %" in out


def test_photographs_with_bad_scores_are_left_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of two photographs gives NaN: the other one is explained."""
    Image.new("RGB", (16, 16), "black").save("black.png")
    arguments = ("--model", "tiny:black_is_nan", "--no-scores", "--methods", "saliency")
    assert tiny("black.png", "noise.png", *arguments) == 2
    out, err = capsys.readouterr()
    assert "noise.png: " in out
    assert "black.png" not in out
    assert "tiny:black_is_nan fails on black.png: 5 of its 5 scores are NaN" in err
    assert err.count("\n") == 1


def test_patterns_and_prefixed_weights(folder: Path) -> None:
    """As Windows's shells leave the one, and DataParallel the other."""
    torch.manual_seed(5)
    model = zoo.load("tiny:network").model
    state = {f"module.{k}": torch.randn_like(v) for k, v in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, "weights.ckpt")
    arguments = ("--no-scores", "--methods", "saliency", "--npz", "m.npz")
    assert tiny("*.png", "--weights", "weights.ckpt", *arguments) == 0
    model.load_state_dict({k.removeprefix("module."): v for k, v in state.items()})
    with np.load("m.npz") as arrays:
        assert arrays["photographs"].tolist() == ["noise.png", "other.png"]
        with torch.no_grad():
            expected = model(torch.from_numpy(arrays["inputs"]))
        np.testing.assert_allclose(arrays["scores"], expected, rtol=1e-5)


def test_the_help_and_the_page_name_every_key_of_a_checkpoint(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["explain", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    page = (ROOT / "docs/start.md").read_text(encoding="utf-8")
    for key in statefiles.WRAPPED:
        assert f"'{key}'" in text
        assert f"`{key}`" in page


@pytest.mark.parametrize("page", ["README.md", "docs/start.md"])
def test_the_recipe_for_ones_own_network(folder: Path, page: str) -> None:
    """As printed: its file, and its command as the installed one, which does not see the folder."""
    text = (ROOT / page).read_text(encoding="utf-8")
    (recipe,) = re.findall(r"```python\n(# mynet\.py\n.*?)```", text, re.DOTALL)
    (line,) = re.findall(r"captum-pullback (explain cat\.jpg --model mynet:make .*)\n", text)
    (folder / "mynet.py").write_text(recipe)
    made: dict[str, Any] = {}
    exec(recipe, made)
    network = made["make"]()
    state = {f"module.{name}": value for name, value in network.model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, "mynet.pt")
    with Image.open("noise.png") as image:
        image.convert("RGB").save("cat.jpg")
    start = "import sys; from captum_pullback.commands.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-s", "-c", start,
         *line.split(), "--npz", "cat.npz", "--scores", "none"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "  for cat " in done.stdout
    with np.load("cat.npz") as arrays, Image.open("cat.jpg") as image, torch.no_grad():
        seen = network.preprocess(image)[None]
        np.testing.assert_allclose(arrays["inputs"], seen, atol=1e-6)
        np.testing.assert_allclose(arrays["scores"], network.model.eval()(seen), rtol=1e-5)


def test_the_progress_bar_is_for_terminals(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for shown in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", shown)
        assert tiny("noise.png", "--no-scores") == 0
        bar = re.search(r"100%.* 3/3 ", shown.getvalue())
        assert bool(bar) == shown.isatty()
        assert ("Integrated Gradients" in shown.getvalue()) == shown.isatty()


@pytest.mark.parametrize("command", ["explain", "ascend"])
def test_class_names_that_are_not_one_for_each_output_are_told(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (folder / "few.py").write_text(
        "from dataclasses import replace\n"
        "import tiny\n"
        "def make():\n"
        "    return replace(tiny.network(), classes=('cat', 'dog'))\n"
    )
    more = ["--no-scores"] if command == "explain" else ["--steps", "1", "--targets", "1"]
    assert cli.main([command, "noise.png", "--model", "few:make", *more]) == 0
    said = capsys.readouterr().err
    assert "warning: few:make has 2 class names for 5 outputs" in said
    assert cli.main([command, "noise.png", "--model", "tiny:network", *more]) == 0
    assert "class names" not in capsys.readouterr().err
