"""benchmarks.compare as a command: killed and resumed, shared among processes, refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

ROOT = Path(__file__).parent.parent
OF_MACHINE = ("time", "milliseconds", "memory", "mebibytes")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of two classes with boxes, and a list of pictures of four without."""
    folder = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    boxes = ["split,wnid,file,x0,y0,x1,y1"]
    for wnid in ("n1", "n2"):
        (folder / "val" / wnid).mkdir(parents=True)
        for number in range(4):
            picture = Image.fromarray(draw.integers(0, 90, (64, 64, 3), dtype=np.uint8))
            ImageDraw.Draw(picture).ellipse((8, 8 + 4 * number, 40, 40), fill=(250, 120, 10))
            picture.save(folder / "val" / wnid / f"{number}.png")
            boxes.append(f"val,{wnid},{number}.png,8,{8 + 4 * number},40,40")
            boxes.append(f"train,{wnid},{number}.png,0,0,1,1")
    (folder / "listed").mkdir()
    listed = ["file,index,wnid,name"]
    for number in range(5):
        picture = Image.fromarray(draw.integers(0, 255, (48, 48, 3), dtype=np.uint8))
        picture.save(folder / "listed" / f"{number}.png")
        listed.append(f"{number}.png,{number % 4},n{number % 4},name")
    (folder / "listed" / "classes.csv").write_text("\n".join(listed) + "\n")
    (folder / "boxes.csv").write_text("\n".join(boxes) + "\n")
    return folder


def command(pictures: Path, out: Path, *more: str) -> list[str]:
    return [
        "benchmarks.compare", "--on", str(pictures / "val"), "tiny:reused",
        "--on", str(pictures / "listed"), "tiny:gelu",
        "--boxes", str(pictures / "boxes.csv"), "--out", str(out),
        "--methods", "pullback", "ig", "smooth_pullback", "guidedbackprop", "noise",
        "--images", "5", "4", "--repeated", "2", "--mosaics", "3", "--averaged", "3", "2",
        "--samples", "2",
        "--neighbors", "2", "--cost-batch", "2", "--cost-rounds", "1", *more,
    ]  # fmt: skip


def environment(**more: str) -> dict[str, str]:
    return {
        **os.environ,
        **more,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "OMP_NUM_THREADS": "1",
    }


def run(words: list[str], processes: int = 1) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", *words]
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        launcher += [str(processes), "-m", *words]
    return subprocess.run(
        [sys.executable, *launcher],
        cwd=ROOT, env=environment(), text=True, capture_output=True, timeout=600, check=False,
    )  # fmt: skip


def scores(path: Path):
    """The table without what the clock has a say in, and without the file names in commands."""
    table = pd.read_csv(path, keep_default_na=False, dtype={"value": str, "note": str})
    table["value"] = table["value"].map(float)
    return table[~table["metric"].isin(OF_MACHINE)].drop(columns="command").reset_index(drop=True)


@pytest.fixture(scope="module")
def undisturbed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "scores.csv"
    done = run(command(pictures, out, "--report", str(out.parent / "report")))
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_every_score_is_there_once(undisturbed: Path) -> None:
    table = scores(undisturbed)
    keys = ["network", "image", "method", "metric", "seed"]
    assert not table.duplicated(keys).any()
    count = table.groupby(["network", "method", "metric"]).size()
    for metric, boxed, listed in (
        ("infidelity", 5, 4),
        ("infidelity_raw", 5, 4),
        ("infidelity_gaussian", 5, 4),
        ("faithfulness_correlation", 5, 4),
        ("box_share", 5, None),
        ("pointing_game", 5, None),
        ("mosaic_share", None, 3),  # only where no boxes are known
        ("max_sensitivity", 2, 2),
        ("random_logit", 2, 2),
    ):
        for name, expected in (("tiny", boxed), ("tiny:gelu", listed)):
            assert count.get((name, "ig", metric)) == expected, (name, metric)
    for name, averaged, every in (("tiny", 3, 5), ("tiny:gelu", 2, 4)):
        assert count[name, "smooth_pullback", "infidelity"] == averaged
        assert count[name, "noise", "infidelity"] == every  # draws, but averages nothing
    skipped = table[table["metric"] == "skipped"]
    assert list(skipped["method"]) == ["guidedbackprop"]
    assert "needs nn.ReLU modules" in skipped["note"].item()
    assert ("tiny:gelu", "guidedbackprop", "infidelity") not in count.index
    assert ("tiny", "guidedbackprop", "infidelity") in count.index
    assert (table["checkpoint"].str.len() == 16).all()
    assert (table[["torch", "device"]] != "").all().all()
    # Noise knows no classes.
    noise = table[(table["method"] == "noise") & (table["metric"] == "random_logit")]
    assert np.allclose(noise["value"], 1, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_fewer_photographs_have_the_same_scores_and_more_go_on(
    pictures: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out, every = tmp_path / "scores.csv", scores(undisturbed)
    done = run(command(pictures, out, "--images", "3"))
    assert done.returncode == 0, done.stderr
    few = scores(out)
    images = few[["network", "image"]].drop_duplicates()
    assert len(images) == 3 + 3 + 1  # and what was skipped, of no photograph
    pd.testing.assert_frame_equal(few, every.merge(images), check_exact=True)
    lines = tmp_path / "scores.csv.work" / "scores_0.jsonl"
    finished = lines.read_bytes()
    done = run(command(pictures, out))
    assert done.returncode == 0, done.stderr
    assert lines.read_bytes().startswith(finished)  # nothing was done again
    pd.testing.assert_frame_equal(scores(out), every, check_exact=True)


@pytest.mark.slow
def test_two_processes_give_the_same_table(
    pictures: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.csv"
    done = run(command(pictures, out), processes=2)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "scores.csv.work").glob("scores_*")} == {
        "scores_0.jsonl",
        "scores_1.jsonl",
    }
    pd.testing.assert_frame_equal(scores(out), scores(undisturbed), check_exact=True)


@pytest.mark.slow
def test_killed_and_resumed_is_the_same_table(
    pictures: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.csv"
    lines = tmp_path / "scores.csv.work" / "scores_0.jsonl"
    words = [sys.executable, "-m", *command(pictures, out)]
    slowly = environment(TINY_SLEEP="0.02")
    with subprocess.Popen(words, cwd=ROOT, env=slowly, stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 300
        while not (lines.exists() and lines.read_bytes().count(b"\n") >= 3):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    finished = lines.read_bytes()
    finished = finished[: finished.rindex(b"\n") + 1]
    lines.write_bytes(finished + b'["tiny", "torn in the mid')
    done = run(command(pictures, out))
    assert done.returncode == 0, done.stderr
    assert lines.read_bytes().startswith(finished)  # nothing was done again
    assert len(lines.read_bytes().splitlines()) == 5 + 4 + 2
    pd.testing.assert_frame_equal(scores(out), scores(undisturbed), check_exact=True)


@pytest.mark.slow
def test_dead_worker_is_announced_and_what_it_did_is_kept(
    pictures: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.csv"
    work = tmp_path / "scores.csv.work"
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words += ["-m", *command(pictures, out)]
    with subprocess.Popen(
        words, cwd=ROOT, env=environment(TINY_SLEEP="0.02"), text=True, stderr=subprocess.PIPE
    ) as process:
        end = time.monotonic() + 300
        lines = work / "scores_1.jsonl"
        while not (lines.exists() and lines.read_bytes().count(b"\n") >= 1):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Everything that was finished is kept" in errors
    assert not out.exists()
    done = run(command(pictures, out))  # one process goes on where two were
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(scores(out), scores(undisturbed), check_exact=True)


@pytest.mark.slow
def test_a_truncated_photograph_is_left_out_until_it_is_repaired(
    pictures: Path, undisturbed: Path, tmp_path: Path
) -> None:
    photos = tmp_path / pictures.name  # which is in the table
    shutil.copytree(pictures, photos)
    expected = scores(undisturbed)
    name = expected["image"][expected["image"].str.startswith("n1/")].iloc[0]
    whole = (photos / "val" / name).read_bytes()
    (photos / "val" / name).write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "scores.csv"
    for _ in range(2):  # a restart goes past it, too
        done = run(command(photos, out))
        assert done.returncode == 0, done.stderr
        assert "without 1 photograph that cannot be read" in done.stdout
        assert done.stderr.count("left out: ") == 1
        assert name in done.stderr
        rest = expected[expected["image"] != name].reset_index(drop=True)
        pd.testing.assert_frame_equal(scores(out), rest, check_exact=True)
    (photos / "val" / name).write_bytes(whole)
    done = run(command(photos, out))
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(scores(out), expected, check_exact=True)


@pytest.mark.slow
def test_report_is_from_the_table_alone(undisturbed: Path, tmp_path: Path) -> None:
    report = undisturbed.parent / "report"
    again = run(["benchmarks.compare.report", str(undisturbed), str(tmp_path)])
    assert again.returncode == 0, again.stderr
    for name in ("summary.csv", "table.tex"):
        assert (tmp_path / name).read_text() == (report / name).read_text()
    assert np.asarray(Image.open(tmp_path / "verdicts.png")).std() > 5
    summary = pd.read_csv(tmp_path / "summary.csv", keep_default_na=False)
    table = scores(undisturbed)
    own = summary[(summary["metric"] == "infidelity") & (summary["method"] == "ig")]
    wanted = table[(table["metric"] == "infidelity") & (table["method"] == "ig")]
    for row in own.itertuples():
        value = wanted[wanted["network"] == row.network]["value"].mean()
        assert float(row.mean) == pytest.approx(value, rel=1e-5)


@pytest.mark.slow
def test_other_settings_need_another_folder(pictures: Path, undisturbed: Path) -> None:
    done = run(command(pictures, undisturbed, "--samples", "3"))
    assert done.returncode == 2
    assert "other plan" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    work = undisturbed.with_name("scores.csv.work")
    assert json.loads((work / "settings.json").read_text())["plan"]["samples"] == 2
