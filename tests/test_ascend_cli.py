"""The command ``ascend`` from outside: what it writes, what it says, and what it leaves behind."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Terminal, command, new_files
from PIL import Image

from captum_pullback import PullbackAscent
from captum_pullback.commands import ascend, cli
from captum_pullback.study.ascents import Ways
from captum_pullback.zoo import networks as zoo
from captum_pullback.zoo.photos import read_photo


def tiny(*arguments: str, model: str = "network") -> int:
    return cli.main(["ascend", "--model", f"tiny:{model}", *arguments])


def rows_of(said: str) -> list[tuple[str, str, float, float]]:
    """The table's rows: towards, method, before, after."""
    number = r"([\N{MINUS SIGN}\d.e+]+)".replace(r"\N{MINUS SIGN}", "\N{MINUS SIGN}")
    found = re.findall(rf"^  (.+?) +(along .+?) +{number} +{number} +{number}$", said, re.M)
    return [
        (a, b, *(float(v.replace("\N{MINUS SIGN}", "-")) for v in (c, d)))
        for a, b, c, d, _ in found
    ]


def test_the_default_run_is_a_grid_with_own_classes_on_the_diagonal(folder: Path) -> None:
    done = command("ascend")
    assert (done.returncode, done.stderr) == (0, "")
    assert new_files(folder) == {"ascent.png"}
    rows = rows_of(done.stdout)
    classes = ["military uniform", "tabby", "espresso", "projectile"]
    assert [row[0] for row in rows] == classes * 4
    assert all(after >= before for _, _, before, after in rows)  # to a tenth
    for photo in ("grace_hopper", "chelsea", "coffee", "rocket"):
        assert f"\n{photo}: " in f"\n{done.stdout}"
    with Image.open("ascent.png") as image:
        picture = np.asarray(image.convert("RGB")).astype(int)
    green = np.abs(picture - (0x1B, 0x78, 0x37)).sum(axis=-1) < 10
    blocks = np.array_split(green[:, green.shape[1] // 5 :], 4, axis=0)
    for i, block in enumerate(blocks):
        counts = [part.sum() for part in np.array_split(block, 4, axis=1)]
        assert int(np.argmax(counts)) == i
        assert max(counts) > 3 * (sum(counts) - max(counts))


def test_the_scores_are_the_networks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = tiny(
        "noise.png", "other.png", "--targets", "espresso,1", "--targets", "tench, Tinca tinca",
        "--temperature", "0.7", "--pool-temperature", "0.1", "--steps", "3", "--step-size", "0.2",
        "--radius", "0.4", "--unbounded", "--compare",
    )  # fmt: skip
    assert code == 0
    network = zoo.load("tiny:network")
    rows = iter(rows_of(capsys.readouterr().out))
    for photo in ("noise.png", "other.png"):
        inputs = network.preprocess(read_photo(photo))[None]
        for target in (3, 1, 0):
            for temperature, pool in ((0.7, 0.1), (0.0, None)):
                ascent = PullbackAscent(
                    network.model, temperature, pool_temperature=pool, steps=3, step_size=0.2,
                    radius=0.4, relative=True,
                )  # fmt: skip
                trace = ascent.trace(inputs, target)
                name, method, before, after = next(rows)
                assert name == network.classes[target]
                assert ("plain" in method) == (temperature == 0)
                assert before == pytest.approx(float(trace[0].score), abs=0.051)
                assert after == pytest.approx(float(trace[-1].score), abs=0.051)
    assert next(rows, None) is None


def test_own_and_random_classes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for seed in ("0", "0", "1", "2", "3"):
        arguments = ("--targets", "1,self,random,random", "--seed", seed, "--steps", "1")
        assert tiny("noise.png", "other.png", *arguments) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert len({tuple(row[0] for row in rows_of(text)) for text in said}) > 1
    for text in said:
        blocks = text.split("\n\n")[:2]
        for block in blocks:
            predicted = re.match(r".*?: (.+?) \d+ %", block.strip())
            names = [row[0] for row in rows_of(block)]
            assert predicted is not None
            assert names[:2] == ["goldfish", predicted[1]]
            assert not {*names[2:]} & {"goldfish", predicted[1]}
            assert names[2] != names[3]


def test_one_photograph_gets_a_random_class_besides(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny("noise.png", "--steps", "1") == 0
    names = [row[0] for row in rows_of(capsys.readouterr().out)]
    assert len(set(names)) == 2


def test_pixels_stay_between_black_and_white_unless_told_otherwise(folder: Path) -> None:
    network = zoo.load("tiny:network")
    for bounded in (True, False):
        ways = Ways(0.3, step_size=2, radius=9, bounded=bounded)
        rows = ascend._read(network, ["noise.png"], "cpu")
        ascend._columns(network, ["0"], rows, 0)
        (row,) = ascend._ascended(network, rows, "cpu", ways)
        (steps,) = row.steps.values()
        std, mean = (torch.tensor(v).view(3, 1, 1) for v in (network.std, network.mean))
        pixels = steps[-1].inputs * std + mean
        assert (float(pixels.min()) > -1e-5 and float(pixels.max()) < 1 + 1e-5) == bounded


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
@pytest.mark.parametrize("show", ["both", "perturbation", "photograph"])
def test_figures_of_all_kinds(folder: Path, suffix: str, show: str) -> None:
    out = f"grid.{suffix}"
    assert tiny("noise.png", "--out", out, "--show", show, "--steps", "1", "--scale", "cell") == 0
    start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix]
    assert Path(out).read_bytes().startswith(start)
    if suffix == "svg":
        assert "own class" not in Path(out).read_text(encoding="utf-8")
        assert "random class" in Path(out).read_text(encoding="utf-8")


def test_the_animation_goes_from_grey_to_the_last_step(folder: Path) -> None:
    code = tiny(
        "noise.png", "--targets", "0,1", "--show", "perturbation", "--steps", "2",
        "--gif", "steps.gif", "--out", "steps.png",
    )  # fmt: skip
    assert code == 0
    assert new_files(folder) == {"steps.gif", "steps.png"}
    with Image.open("steps.gif") as animation:
        assert animation.n_frames == 3
        contrast = []
        for number in range(3):
            animation.seek(number)
            frame = np.asarray(animation.convert("RGB")).astype(float)
            cell = frame[frame.shape[0] // 3 : frame.shape[0] // 2, int(0.4 * frame.shape[1]) :]
            cell = cell[:, : int(0.2 * frame.shape[1])]
            contrast.append(cell.std(axis=(0, 1)).max())
    assert contrast[0] < 2
    assert contrast[0] < contrast[1] < contrast[2]


def test_scores_that_are_not_finite_are_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny("noise.png", "--targets", "0", model="nan_in_gradients") == 2
    err = capsys.readouterr().err
    assert "noise.png: tiny:nan_in_gradients: the target's score is not finite" in err
    assert err.count("\n") == 1
    assert new_files(folder) == set()


def test_what_can_be_done_is_done(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny("broken.jpg", "noise.png", "--steps", "1") == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert "noise.png: " in out
    assert new_files(folder) == {"ascent.png"}


def test_no_half_written_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("ascent.png").write_bytes(b"what was there before")

    def write(figure: object, file: object, format: str) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ascend, "save_figure", write)
    assert tiny("noise.png", "--steps", "1") == 2
    assert "No space left on device" in capsys.readouterr().err
    assert new_files(folder) == {"ascent.png"}
    assert Path("ascent.png").read_bytes() == b"what was there before"


def test_samples_only_as_far_as_they_are_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ascend.importlib.util, "find_spec", lambda name: None)
    assert tiny("--steps", "1") == 0
    out, err = capsys.readouterr()
    assert "grace_hopper: " in out
    assert "chelsea" not in out
    assert "scikit-image" in err


def test_a_bar_while_the_animation_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    assert tiny("noise.png", "--steps", "2", "--gif", "steps.gif") == 0
    assert re.search(r"animation: 100%.* 3/3 ", shown.getvalue())


def test_a_network_of_one_output_has_no_random_class(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny("noise.png", "--steps", "1", model="one_unnamed") == 0
    out = capsys.readouterr().out
    assert [row[0] for row in rows_of(out)] == ["class 0"]
    assert re.match(r"noise\.png: class 0 score -?\d", out)
