"""benchmarks.published: its metrics by hand, and the command from end to end on a tiny network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn

from benchmarks.compare.scoring import Score
from benchmarks.published import __main__ as command
from benchmarks.published import protocol, report, scoring
from captum_pullback.zoo.networks import Network, load, preprocessing

ROOT = Path(__file__).parent.parent


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()


class Sums(nn.Module):
    """Each quadrant's sum of the first channel of a picture of 4 x 4, times 1, 2, 3 and 4."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (N, 3, 4, 4) to (N, 1)."""
        weights = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).repeat_interleave(2, 0)
        return (x[:, 0] * weights.repeat_interleave(2, 1)).sum((1, 2))[:, None]


class TestInfidelity:
    def test_by_hand(self) -> None:
        """At 1 everywhere quadrants give 4, 8, 12, 16, and single pixels 1, 1, 2, 2, ..."""
        x, nothing = torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
        pixels = np.array([1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4])
        large = np.array([4, 8, 12, 16])
        for stay in (False, True):
            found = scoring.tiled_infidelity(
                Sums(), x, [nothing, x * 7], 0, [True, True], stay=stay, at_once=3
            )
            parts = [np.cumsum(part) if stay else part for part in (large, pixels)]
            assert found[0].item() == pytest.approx(np.mean([np.mean(p**2) for p in parts]))
            # A map that is the same everywhere: what is left of the changes beside a line.
            even = [np.ones(len(p)) for p in parts]
            even = [np.cumsum(e) if stay else e for e in even]
            left = [
                np.mean((p - e * (p @ e) / (e @ e)) ** 2) for p, e in zip(parts, even, strict=True)
            ]
            assert found[1].item() == pytest.approx(np.mean(left))

    def test_is_zero_for_a_linear_model_in_either_form(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).double()
        x = torch.randn(1, 3, 8, 8).double()
        gradient = 5 * model[1].weight[1].view(1, 3, 8, 8)
        found = scoring.tiled_infidelity(
            model, x, [gradient, gradient * x], 1, [False, True], stay=True, at_once=64
        )
        assert found.tolist() == pytest.approx([0, 0], abs=1e-20)

    @pytest.mark.filterwarnings("ignore")
    def test_is_quantuss_with_patches_that_stay(self) -> None:
        quantus = pytest.importorskip("quantus", reason="quantus is not installed")

        def at_best_scale(a: np.ndarray, b: np.ndarray, **_: Any) -> np.ndarray:
            scale = (a * b).sum(1, keepdims=True) / (b * b).sum(1, keepdims=True)
            return ((a - scale * b) ** 2).mean(1)

        model, x, map_ = small(), torch.randn(1, 3, 8, 8), torch.randn(1, 3, 8, 8)
        metric = quantus.Infidelity(
            loss_func=at_best_scale, perturb_patch_sizes=[4, 2], n_perturb_samples=1,
            perturb_baseline=0.0, disable_warnings=True,
        )  # fmt: skip
        (theirs,) = metric(
            model=model, x_batch=x.numpy(), y_batch=np.array([1]), a_batch=map_.numpy(),
            channel_first=True, softmax=False, device="cpu",
        )  # fmt: skip
        own = scoring.tiled_infidelity(model, x, [map_], 1, [False], stay=True, at_once=64)
        assert own.item() == pytest.approx(theirs, rel=1e-4)


def test_a_scaled_network_takes_pixels_from_minus_one_to_one() -> None:
    network = Network(small(), (), preprocessing(8), (0.5, 0.4, 0.3), (0.2, 0.25, 0.5), 8)
    pixels = torch.rand(2, 3, 8, 8)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (network.mean, network.std))
    expected = network.model((pixels - mean) / std)
    torch.testing.assert_close(protocol.Scaled(network)(2 * pixels - 1), expected)


@pytest.mark.filterwarnings("ignore:no gate ran under")
def test_published_gates_are_the_normal_distributions() -> None:
    """ReLU at 0.6 in closed form; the ascent has the published lengths by default."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    network = Network(model.eval(), (), preprocessing(8), input_size=8)
    x = torch.randn(1, 3, 8, 8).double()
    found = protocol.METHODS["pullback"].make(network)(x, target=1)
    z = model[1](x.flatten(1))
    gates = torch.distributions.Normal(0.0, 1.0).cdf(z / 0.6)
    expected = (model[3].weight[1] * gates) @ model[1].weight
    torch.testing.assert_close(found.flatten(), expected.flatten())
    ascent = protocol.METHODS["ascent"].make(network).__self__
    assert (ascent.steps, ascent.step_size, ascent.radius, ascent.relative) == (5, 20, 100, False)


def test_published_values_are_those_of_the_table() -> None:
    """Of every published row at least the infidelity; and no metric or method without a title."""
    for rows in protocol.PUBLISHED.values():
        for method, values in rows.items():
            assert method in protocol.METHODS
            assert "infidelity" in values
            assert set(values) <= set(protocol.METRICS)
    assert protocol.PUBLISHED["resnet50"]["guided_gradcam"]["focus"] == 0.85
    assert protocol.PUBLISHED["pvt_v2_b1"]["ascent"]["infidelity"] == 1.63
    assert "focus" not in protocol.PUBLISHED["vgg11_bn"]["pullback"]


@pytest.mark.parametrize(
    ("low", "high", "published", "verdict"),
    [
        (0.3, 0.4, 0.39, "agrees"),
        (0.3, 0.386, 0.39, "agrees"),  # 0.385 would have been printed so
        (0.3, 0.384, 0.39, "ours is lower"),
        (0.396, 0.5, 0.39, "ours is higher"),
        (66.84, 70.0, 66.8, "agrees"),
        (66.86, 70.0, 66.8, "ours is higher"),
        (99.0, 99.6, 100.0, "agrees"),
        (0.3, 0.4, None, ""),
        (float("nan"), float("nan"), 0.39, ""),
    ],
)
def test_verdicts(low: float, high: float, published: float | None, verdict: str) -> None:
    assert report.verdict(low, high, published) == verdict


def test_rows_leave_out_what_is_not_defined() -> None:
    scores = {("pullback", "correlation"): [0.2, float("nan"), 0.4]}
    (row,) = report.rows("resnet50", ["pullback"], scores)
    assert (row["count"], row["mean"]) == (2, pytest.approx(0.3))
    assert (row["published"], row["verdict"]) == (0.39, "agrees")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of two classes."""
    folder = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    for name in ("one", "two"):
        (folder / name).mkdir()
        for number in range(3):
            picture = Image.fromarray(draw.integers(0, 90, (64, 64, 3), dtype=np.uint8))
            ImageDraw.Draw(picture).ellipse((8, 8 + 4 * number, 40, 40), fill=(250, 120, 10))
            picture.save(folder / name / f"{number}.png")
    return folder


def words(pictures: Path, out: Path, *more: str) -> list[str]:
    return ["--model", "resnet50", "--data", str(pictures), "--out", str(out), "--images", "4",
            "--mosaics", "2", "--device", "cpu", *more]  # fmt: skip


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny network in ResNet-50's place."""
    monkeypatch.setitem(protocol.SOURCES, "resnet50", ("tiny:reused", None))


def test_from_end_to_end_and_resumed(pictures, tiny, tmp_path, capsys) -> None:
    out = tmp_path / "found.json"
    assert command.main(words(pictures, out)) == 0
    said = capsys.readouterr().out
    result = json.loads(out.read_text())
    rows = {(row["metric"], row["method"]): row for row in result["rows"]}
    assert set(rows) == {(m, n) for m in protocol.METRICS for n in protocol.METHODS}
    assert all(row["low"] <= row["mean"] <= row["high"] for row in rows.values())
    assert {row["count"] for (metric, _), row in rows.items() if metric == "focus"} == {2}
    assert {row["count"] for (metric, _), row in rows.items() if metric != "focus"} == {4}
    assert rows["infidelity", "gradient"]["published"] == 83.3
    assert rows["infidelity", "gradient"]["verdict"] == "ours is lower"
    assert "| infidelity | lower | gradient |" in said
    assert "| 83.3 | ours is lower |" in said
    # Cut off in the middle of a line, it goes on from there, and the result is the same.
    lines = tmp_path / "found.json.work" / "scores_0.jsonl"
    kept = lines.read_bytes().splitlines(keepends=True)
    assert len(kept) == 6
    lines.write_bytes(b"".join(kept[:4]) + kept[4][:30])
    out.unlink()
    assert command.main(words(pictures, out)) == 0
    assert json.loads(out.read_text()) == result
    assert lines.read_bytes().splitlines(keepends=True)[:4] == kept[:4]
    # Other settings are another run.
    assert command.main(words(pictures, out, "--methods", "gradient")) == 2
    assert "holds a run with other methods" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_give_the_same(pictures, tiny, tmp_path) -> None:
    """Under torchrun, where the tiny network is asked for by its own name."""
    alone, together = tmp_path / "alone.json", tmp_path / "together.json"
    own = ["--model", "tiny:reused", "--methods", "pullback", "gradient"]
    assert command.main(words(pictures, alone, *own)) == 0
    path = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "benchmarks.published", *words(pictures, together, *own)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        text=True, capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    work = tmp_path / "together.json.work"
    assert {each.name for each in work.glob("scores_*")} == {"scores_0.jsonl", "scores_1.jsonl"}
    one, two = (json.loads(each.read_text()) for each in (alone, together))
    assert one["rows"] == two["rows"]
    assert "of tiny:reused nothing was published" in done.stdout


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data", "nowhere"], "no photographs could be had from nowhere"),
        (["--weights", "nowhere.pt"], "nowhere.pt"),
        (["--model", "resnet51"], "resnet51"),
        (["--out", "somewhere.png"], "the name must end in .json"),
    ],
)
def test_what_is_missing_is_said_in_one_line(more, message, pictures, tmp_path, capsys) -> None:
    assert command.main(words(pictures, tmp_path / "out.json", *more)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_photograph_that_cannot_be_read_is_left_out(pictures, tiny, tmp_path, capsys) -> None:
    folder = tmp_path / "data"
    for file in pictures.rglob("*.png"):
        (folder / file.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / file.parent.name / file.name).write_bytes(file.read_bytes())
    (folder / "one" / "1.png").write_bytes(b"no picture")
    out = tmp_path / "out.json"
    more = ["--images", "6", "--mosaics", "0", "--methods", "gradient"]
    assert command.main(words(folder, out, *more)) == 0
    assert "left out: " in capsys.readouterr().err
    (first, *_) = json.loads(out.read_text())["rows"]
    assert first["count"] == 5


def test_a_method_that_the_network_cannot_have_is_named(tmp_path) -> None:
    """A network without nn.ReLU modules, as PVTv2 is."""
    network = Network(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), (), preprocessing(8))
    found, refused = command._attributes(network, list(protocol.METHODS))
    assert list(found) == ["pullback", "ascent", "gradient", "ig"]
    assert refused == {
        "guided_gradcam": "Guided Grad-CAM needs nn.ReLU modules; this network has none"
    }


@pytest.mark.parametrize("name", ["resnet50", "vgg11_bn"])
def test_all_methods_can_be_made_for_the_published_networks(name: str) -> None:
    network = load(protocol.SOURCES[name][0], "random")
    scaled = protocol.Scaled(network).eval()
    given = Network(scaled, (), network.preprocess, input_size=64)
    found, refused = command._attributes(given, list(protocol.METHODS))
    assert not refused
    assert list(found) == list(protocol.METHODS)


def test_a_mosaic_is_of_photographs_at_half_size() -> None:
    """Where a map is the input itself, its square's share is known."""
    members = [torch.full((1, 3, 4, 4), value) for value in (1.0, 2.0, -3.0, 4.0)]
    inside = torch.tensor([False, True, True, False])
    seen = []

    def attribute(inputs: torch.Tensor, target: int) -> torch.Tensor:
        seen.append((inputs.shape, target))
        return inputs * 1.0

    scores = scoring.mosaic({"gradient": attribute, "ig": attribute}, members, 3, inside)
    assert seen == [((1, 3, 4, 4), 3)] * 2
    assert scores == [
        Score("gradient", "focus", "", 0, pytest.approx(13 / 30)),  # 1, 4, 9, 16
        Score("ig", "focus", "", 0, pytest.approx(2 / 7)),  # 1, 2, none, 4
    ]
