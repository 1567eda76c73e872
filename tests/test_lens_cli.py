"""The command lens: from checkpoints and data to a page, and what is said when that cannot be."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from captum_pullback import TrainingLens
from captum_pullback.commands.checkpoints import (
    DIGITS_STEPS,
    checkpoints,
    digits_network,
    digits_run,
    read_state,
)
from captum_pullback.commands.cli import main
from captum_pullback.commands.terminal import UsageError
from captum_pullback.zoo.reference import ReferenceNet

pytest.importorskip("sklearn")


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Checkpoints of a short training, and its data."""
    torch.manual_seed(0)
    x = torch.randn(24, 4)
    y = (x[:, 0] > 0).long()
    model = perceptron()
    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    (tmp_path / "checkpoints").mkdir()
    for step in range(9):
        if step % 2 == 0:
            state = {"state_dict": model.state_dict(), "step": step}
            torch.save(state, tmp_path / "checkpoints" / f"epoch=1-step={step}.ckpt")
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    torch.save(model.state_dict(), tmp_path / "checkpoints" / "latest.pt")
    np.savez(tmp_path / "data.npz", inputs=x.numpy(), labels=y.numpy())
    return tmp_path


def command(folder: Path, *more: str) -> list[str]:
    return [
        "lens", "--checkpoints", str(folder / "checkpoints"), "--data", str(folder / "data.npz"),
        "--model", f"{__name__}:perceptron", "--per-class", "6",
        "--out", str(folder / "out"), *more,
    ]  # fmt: skip


def test_report_from_checkpoints(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(run)) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"wrote {run / 'out' / 'lens.md'}"
    page = (run / "out" / "lens.md").read_text(encoding="utf-8")
    assert "12 examples of 2 classes, watched at 5 steps from 0 to 8." in page
    for name in re.findall(r"\]\((\S+)\)", page):
        with Image.open(run / "out" / name) as image:
            assert min(image.size) > 200
            assert image.n_frames > 20 if name.endswith("gif") else True
    # What the page says is what the record says.
    with np.load(run / "data.npz") as arrays:
        x, y = torch.from_numpy(arrays["inputs"]), torch.from_numpy(arrays["labels"])
    chosen = torch.cat([torch.nonzero(y == c)[:6, 0] for c in (0, 1)])
    lens = TrainingLens(x[chosen], y[chosen], run / "out" / "record")
    assert lens.steps == [0, 2, 4, 6, 8]
    within, between = lens.similarity().within, lens.similarity().between
    assert f"within a class | {within[0]:.3f} | {within[-1]:.3f} |" in page
    # And so does the summary at the end.
    assert said[1:3] == [
        "5 steps, 0 to 8",
        "effective weights, mean cosine from first to last step: within a class "
        f"{within[0]:.2f} to {within[-1]:.2f}, between classes {between[0]:.2f} to "
        f"{between[-1]:.2f}",
    ]
    agreement = np.mean([values[2] for values in lens.agreement().values()])
    settled = np.mean([values[2] for values in lens.settled_share().values()])
    assert said[3] == (
        f"gates at step 4: {100 * agreement:.0f} % agree with the end, {100 * settled:.0f} % never "
        "flip again"
    )
    model = perceptron()
    model.load_state_dict(torch.load(run / "checkpoints" / "epoch=1-step=8.ckpt")["state_dict"])
    fitted = [float(t) for name, t in lens.fit_temperatures(model).items() if name]
    assert f"temperatures fitted to the gates: {min(fitted):.3g} to {max(fitted):.3g}" in said
    found = lens.alignment(model, (0.3,))
    gradient = f"plain gradient {found.gradient.mean():.3f}, pullback"
    assert said[-1].startswith(f"cosine with the gradient through averaged gates: {gradient}")
    # Started again, it records nothing anew.
    before = {path: path.stat().st_mtime_ns for path in (run / "out" / "record").glob("*.npz")}
    assert main(command(run)) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_pictures_and_the_package_s_own_network(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for label in ("cats", "dogs"):
        (tmp_path / "data" / "val" / label).mkdir(parents=True)
        for number in range(3):
            pixels = generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / "val" / label / f"{number}.png")
    (tmp_path / "checkpoints").mkdir()
    for step in (0, 10, 20):
        torch.manual_seed(step)
        model = ReferenceNet(2, (2, 2, 3, 4), batch_norm=False)  # zero at its start
        nn.init.normal_(model.fc.weight, std=float(step > 0))
        state = {"model": model.state_dict()}
        torch.save(state, tmp_path / "checkpoints" / f"checkpoint_{step:06d}.pt")
    arguments = ["--checkpoints", str(tmp_path / "checkpoints"), "--data", str(tmp_path / "data")]
    arguments += ["--out", str(tmp_path / "out"), "--per-class", "2", "--weights", "label"]
    assert main(["lens", *arguments, "--size", "16"]) == 0
    page = (tmp_path / "out" / "lens.md").read_text(encoding="utf-8")
    assert "4 examples of 2 classes" in page
    assert "layer4.1.relu" in page


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("ant", "bee", "cat", "-dog"), "dog: contains no pictures"),
        (("ant", "-bee", "cat", "dog"), "bee: contains no pictures"),
        (("bee", "cat"), "2 folders of pictures for a network of 3 classes"),
        (("ant", "bee", "cat", "dog"), "4 folders of pictures for a network of 3 classes"),
    ],
)
def test_folders_that_are_not_the_network_s_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], folders: tuple[str, ...], said: str
) -> None:
    """Their numbers would be those of other classes."""
    (tmp_path / "checkpoints").mkdir()
    for step in (0, 1):
        state = ReferenceNet(3, (2, 2, 3, 4)).state_dict()
        torch.save(state, tmp_path / "checkpoints" / f"{step}.pt")
    for name in (*folders, ".cache"):
        folder = tmp_path / "data" / name.lstrip("-")
        folder.mkdir(parents=True)
        if name[0].isalpha():
            Image.new("RGB", (16, 16)).save(folder / "0.png")
    arguments = ["--checkpoints", str(tmp_path / "checkpoints"), "--data", str(tmp_path / "data")]
    assert main(["lens", *arguments, "--out", str(tmp_path / "out"), "--size", "16"]) == 2
    assert said in capsys.readouterr().err


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((2, 2), value)}


def saved(folder: Path, name: str, value: float, **more: object) -> None:
    torch.save({"state_dict": weights(value), **more}, folder / name)


def test_lightning_s_steps_are_those_in_its_files(tmp_path: Path) -> None:
    """`last-v1` is no step 1, and a version is no step either."""
    saved(tmp_path, "epoch=0-step=4.ckpt", 4.0, global_step=4, epoch=0)
    saved(tmp_path, "epoch=1-step=8.ckpt", 8.0, global_step=8, epoch=1)
    saved(tmp_path, "epoch=1-step=8-v1.ckpt", 8.0, global_step=8, epoch=1)
    saved(tmp_path, "epoch=2-val_loss=0.52.ckpt", 12.0, global_step=12, epoch=2)
    saved(tmp_path, "last.ckpt", 8.0, global_step=8, epoch=1)
    saved(tmp_path, "last-v1.ckpt", 16.0, global_step=16, epoch=3)
    saved(tmp_path, "99.ckpt", 2.0, global_step=2, epoch=0)
    (tmp_path / "last-v2.ckpt").write_bytes(b"half of a fi")
    found = checkpoints(tmp_path)
    assert [step for step, _ in found] == [2, 4, 8, 12, 16]
    for step, path in found:
        assert torch.equal(read_state(path)["weight"], weights(step)["weight"])


def test_two_trainings_in_one_folder_are_told_apart(tmp_path: Path) -> None:
    saved(tmp_path, "epoch=0-step=4.ckpt", 4.0, global_step=4)
    saved(tmp_path, "epoch=1-step=8.ckpt", 8.0, global_step=8)
    saved(tmp_path, "epoch=1-step=8-v1.ckpt", 9.0, global_step=8)
    with pytest.raises(UsageError, match=r"same step 8 as epoch=1-step=8-v1\.ckpt.*other weights"):
        checkpoints(tmp_path)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("checkpoint_000640.pt", 640),
        ("model.10.pth", 10),
        ("epoch=1-step=8-val_loss=0.52.ckpt", 8),
        ("epoch=1-step=8-v3.ckpt", 8),
        ("step_300_fp16.pt", 300),
        ("epoch3_loss0.52.pt", 3),
        ("resnet18-epoch7.pt", 7),
    ],
)
def test_steps_in_names(tmp_path: Path, name: str, step: int) -> None:
    saved(tmp_path, name, 1.0)
    saved(tmp_path, "99999.pt", 2.0)
    saved(tmp_path, "last-v1.ckpt", 3.0)
    assert checkpoints(tmp_path) == [(step, tmp_path / name), (99999, tmp_path / "99999.pt")]


def test_files_from_before_torch_1_6_are_read(tmp_path: Path) -> None:
    for step in (1, 2):
        path = tmp_path / f"{step}.pt"
        torch.save(weights(step), path, _use_new_zipfile_serialization=False)
        assert torch.equal(read_state(path)["weight"], weights(step)["weight"])
    assert [step for step, _ in checkpoints(tmp_path)] == [1, 2]


def test_what_is_wrong_is_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = run / "broken"
    broken.mkdir()
    for step in (1, 2):
        (broken / f"{step}.pt").write_bytes(b"nothing")
    cases = [
        (["lens", "--data", "x"], "--checkpoints and --data go together"),
        (command(run, "--checkpoints", str(run / "none")), "is not a folder of checkpoints"),
        (command(run, "--checkpoints", str(broken)), "is not a readable state dict"),
        (command(run, "--data", str(run / "checkpoints")), "0 folders of pictures"),
        (command(run, "--model", f"{__name__}:nothing"), "nothing"),
        (command(run)[:5], "not of the package's own network"),
    ]
    for arguments, said in cases:
        assert main([*arguments, "--out", str(run / "other")]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_a_run_that_stands_still_is_reported_too(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No gate flips, so that there is nothing to tell apart by its distance from 0."""
    state = perceptron().state_dict()
    for path in (run / "checkpoints").iterdir():
        torch.save(state, path)
    assert main(command(run)) == 0
    assert "gates at step 4: 100 % agree with the end, 100 %" in capsys.readouterr().out
    page = (run / "out" / "lens.md").read_text(encoding="utf-8")
    assert "in no layer did some gates flip and others not." in page


def test_what_was_recorded_before_an_error_stays(run: Path) -> None:
    """It need not be done again; a folder without any goes."""
    bad = {name: value * torch.nan for name, value in perceptron().state_dict().items()}
    torch.save(bad, run / "checkpoints" / "epoch=1-step=4.ckpt")
    assert main(command(run)) == 2
    assert sorted(path.name for path in (run / "out" / "record").glob("*.npz")) == [
        "step_000000000.npz",
        "step_000000002.npz",
    ]
    torch.save(bad, run / "checkpoints" / "epoch=1-step=0.ckpt")
    assert main(command(run, "--out", str(run / "fresh"))) == 2
    assert not (run / "fresh").exists()
    (run / "own").mkdir()
    assert main(command(run, "--out", str(run / "own"))) == 2
    assert (run / "own").is_dir(), "one that was there already is the user's"


def test_digits_come_together_within_a_class_and_apart_between() -> None:
    """What the command shows where nothing is given."""
    watched, models = digits_run(seed=0, per_class=4)
    assert torch.bincount(watched.labels).tolist() == [4] * 10
    lens = TrainingLens(watched.inputs, watched.labels, gates=False)
    for step, model in models:
        if step in (0, DIGITS_STEPS):
            lens.record(model, step)
    similarity = lens.similarity()
    assert similarity.within[-1] > similarity.within[0] + 0.2
    assert similarity.between[-1] < similarity.between[0] - 0.04
    assert lens.accuracy()[-1] > 0.9
    assert isinstance(digits_network(), nn.Sequential)
