"""The measuring of speed, and the page that is made of it: arithmetic and files, no times."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import cost_page, provenance, speed, speed_against, speed_cases
from benchmarks.speed_cases import (
    EMBEDDED,
    HARD_POOL,
    KEY,
    SALIENCY,
    SOFT,
    SUITES,
    TARGETS,
    TEMPERATURES,
    WEIGHTS,
    Case,
)


def test_ratios_are_paired_by_round() -> None:
    base = [1.0, 2.0, 4.0, 8.0, 16.0]
    middle, low, high = speed.paired([1.1, 2.4, 4.4, 8.8, 19.2], base, seed=0)
    assert middle == pytest.approx(1.1)
    assert (low, high) == pytest.approx((1.1, 1.2))


def test_the_interval_is_a_bootstrap_of_the_median() -> None:
    ratios = np.random.default_rng(3).lognormal(0.1, 0.2, 41)
    middle, low, high = speed.paired(list(ratios), [1.0] * 41, seed=0)
    assert middle == np.median(ratios)
    # By order statistics, the interval of a median of 41 lies between the 14th and the 28th.
    ordered = np.sort(ratios)
    assert ordered[12] <= low <= ordered[16] < middle < ordered[24] <= high <= ordered[28]


TINY = Case(EMBEDDED, batch=1, resolution=64, rounds=1)


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(SUITES, "small", [TINY])
    monkeypatch.setattr(speed, "MEMORY", [Case(EMBEDDED, 1, 64, methods=(SALIENCY,))])
    monkeypatch.setattr(speed, "KERNELS", [])
    return tmp_path / "speed.csv"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rows_are_appended_once_and_say_how_they_were_made(out: Path) -> None:
    command = ["--suites", "small", "memory", "--threads", "1", "--seed", "5", "--out", str(out)]
    speed.main(command)
    found = rows(out)
    assert [row["method"] for row in found] == [SALIENCY, SOFT, HARD_POOL, SALIENCY]
    assert [row["kind"] for row in found] == ["time", "time", "time", "memory"]
    assert float(found[0]["ratio"]) == 1
    assert all(float(row["seconds"]) > 0 for row in found[:3])
    assert int(found[3]["weight_bytes"]) > 10**7
    for row in found:
        assert (row["seed"], row["threads"], row["device"]) == ("5", "1", "cpu")
        assert row["torch"]
        assert row["instructions"].startswith(torch.backends.cpu.get_cpu_capability())
        assert row["command"].startswith("python -m benchmarks.speed --suites small")
    speed.main(command)
    assert rows(out) == found
    assert len(json.loads(out.with_suffix(".json").read_text())) == 2
    speed.main([*command[:2], *command[3:], "--again"])
    assert len(rows(out)) == 7


def test_a_method_that_fails_is_a_row_too(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Case.calls

    def one_fails(self: Case, *args: Any) -> dict[str, Any]:
        def fail() -> None:
            raise RuntimeError("not here\nbecause")

        return calls(self, *args) | {SOFT: fail}

    monkeypatch.setattr(Case, "calls", one_fails)
    speed.main(["--suites", "small", "--threads", "1", "--out", str(out)])
    assert [row["error"] for row in rows(out)] == ["", "RuntimeError: not here", ""]


def test_many_at_once_are_as_many_single_calls_and_measured_beside_them(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = replace(TINY, network="resnet18, 3 classes", methods=(*TARGETS, *TEMPERATURES, *WEIGHTS))
    monkeypatch.setattr(speed_cases, "CLASSES", (2, 0))
    found = {name: call() for name, call in case.calls(*case.network_and_inputs("cpu", 0)).items()}
    assert torch.equal(*(found[name] for name in TARGETS))
    assert torch.equal(*(found[name] for name in TEMPERATURES))
    torch.testing.assert_close(*(found[name] for name in WEIGHTS), rtol=1e-4, atol=1e-5)
    shapes = [tuple(each.shape) for each in found.values()]
    assert shapes == [(k, 1, 3, 64, 64) for k in (2, 2, 7, 7)] + [(1, 3, 3, 64, 64)] * 2
    monkeypatch.setitem(SUITES, "many", [replace(TINY, methods=TARGETS)])
    speed.main(["--suites", "many", "--threads", "1", "--out", str(out)])
    single, many = rows(out)
    assert (single["method"], many["method"], single["ratio"]) == (*TARGETS, "1.0")
    # One round: its ratio is that of the two times, which are rounded to 5 digits.
    expected = float(many["seconds"]) / float(single["seconds"])
    assert float(many["ratio"]) == pytest.approx(expected, rel=1e-3)


def row(network: str, method: str, kind: str = "time", **values: Any) -> dict[str, str]:
    usual = {
        "kind": kind, "network": network, "method": method, "batch": 4, "resolution": 224,
        "dtype": "float32", "mode": "eager", "layout": "contiguous", "device": "cpu",
        "seconds": "", "ratio": "", "low": "", "high": "", "bytes": "", "weight_bytes": "",
        "share": "", "error": "", "threads": 2, "instructions": "",
    }  # fmt: skip
    return {key: str(value) for key, value in (usual | values).items()}


def test_the_page_says_where_memory_is_more_than_was_asked_for() -> None:
    table = cost_page.memory(
        [
            row("resnet50", SALIENCY, "memory", bytes=900 << 20, weight_bytes=100 << 20),
            row("resnet50", SOFT, "memory", bytes=500 << 20, weight_bytes=100 << 20),
            row("resnet50", HARD_POOL, "memory", bytes=450 << 20, weight_bytes=100 << 20),
            row("vit_b_16", SALIENCY, "memory", bytes=100 << 20, weight_bytes=100 << 20),
            row("vit_b_16", SOFT, "memory", bytes=80 << 20, weight_bytes=100 << 20),
        ]
    ).splitlines()
    assert table[2:] == [
        "| ResNet-50 | 100 MiB | 900 MiB | 500 MiB | 0.56 | 0.60 | 450 MiB | 0.50 | 0.60 |",
        "| ViT-B/16 | 100 MiB | 100 MiB | 80 MiB | 0.80, **missed** | 0.70 | | | 0.90 |",
    ]


def test_the_last_of_two_measurements_counts(tmp_path: Path) -> None:
    file = tmp_path / "speed.csv"
    found = [row("resnet18", SOFT, ratio=ratio) for ratio in (2, 3)]
    with file.open("w", newline="", encoding="utf-8") as target:
        writer = csv.DictWriter(target, [*KEY, "ratio"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(found)
    assert [entry["ratio"] for entry in cost_page.read(file)] == ["3"]


def test_what_onednn_was_kept_to_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert provenance.instructions() == "AVX512"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert provenance.instructions() == "AVX512, oneDNN at most AVX2"


def test_a_file_from_before_a_column_gets_it(out: Path) -> None:
    speed.main(["--suites", "small", "--threads", "1", "--out", str(out)])
    before = rows(out)
    with out.open("w", newline="", encoding="utf-8") as file:
        names = [name for name in before[0] if name != "instructions"]
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(before)
    # What was in use then is not known, so that it is measured anew.
    speed.main(["--suites", "small", "--threads", "1", "--out", str(out)])
    after = rows(out)
    assert [row["instructions"] for row in after[:3]] == [""] * 3
    assert [row["seconds"] for row in after[:3]] == [row["seconds"] for row in before]
    assert [row["method"] for row in after[3:]] == [row["method"] for row in before]


def test_the_kinds_of_cpu_stand_side_by_side() -> None:
    few = "AVX2, oneDNN at most AVX2"
    usual = {"seconds": 1, "low": 1, "high": 2}
    found = [
        row("resnet50", SOFT, ratio=1.1, instructions="AVX512", **usual),
        row("resnet50", SOFT, ratio=1.3, instructions=few, **usual),
        row("resnet18", SOFT, ratio=1.4, instructions=few, batch=1, **usual),
    ]
    assert cost_page.instructions(found).splitlines() == [
        f"| | target | {few} | AVX512 |",
        "|---|---|---|---|",
        "| ResNet-50, batch 4 | at most 1.10 | 1.30 (1.00 to 2.00), **missed** "
        "| 1.10 (1.00 to 2.00) |",
        "| ResNet-18, batch 1 | at most 1.20 | 1.40 (1.00 to 2.00), **missed** | |",
    ]


@pytest.mark.skipif(not (speed_against.ROOT / ".git").exists(), reason="no git repository")
def test_another_commit_is_measured_in_turns_with_this_one(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SUITES, "small", [replace(TINY, methods=(SALIENCY, SOFT))])
    speed.main(["--suites", "small", "--threads", "1", "--out", str(out), "--against", "HEAD"])
    found = rows(out.with_name("speed_against.csv"))
    assert [(row["kind"], row["method"]) for row in found] == [("against", SOFT)]
    assert float(found[0]["ratio"]) > 0
    assert found[0]["against"] == speed_against._git("rev-parse", "--short", "HEAD")
    assert not out.exists()
    left = speed_against._git("worktree", "list")
    assert "/tree" not in left


def test_a_commit_that_is_none_is_refused() -> None:
    with pytest.raises(SystemExit, match="git rev-parse"), speed_against.other_tree("no-such"):
        pass
