"""The measuring of speed, and the page that is made of it: arithmetic and files, no times."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import cost_page, speed
from benchmarks.speed_cases import EMBEDDED, HARD_POOL, INTEGRATED, SALIENCY, SOFT, SUITES, Case


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


def row(network: str, method: str, kind: str = "time", **values: Any) -> dict[str, str]:
    usual = {
        "kind": kind, "network": network, "method": method, "batch": 4, "resolution": 224,
        "dtype": "float32", "mode": "eager", "layout": "contiguous", "device": "cpu",
        "seconds": "", "ratio": "", "low": "", "high": "", "bytes": "", "weight_bytes": "",
        "share": "", "error": "",
    }  # fmt: skip
    return {key: str(value) for key, value in (usual | values).items()}


def test_the_page_says_which_limits_are_met() -> None:
    table = cost_page.limits(
        [
            row("resnet50", SOFT, seconds=2, ratio=1.0999, low=1, high=1.2),
            row("resnet50", HARD_POOL, seconds=2, ratio=1.06, low=1, high=1.2),
            row("resnet50", INTEGRATED, seconds=79, ratio=43.9, low=43, high=45),
            row("resnet50", SALIENCY, "memory", bytes=900, weight_bytes=100),
            row("resnet50", SOFT, "memory", bytes=500, weight_bytes=100),
        ]
    ).splitlines()
    verdicts = [line.split(" | ")[-2:] for line in table[2:]]
    assert verdicts == [
        ["1.10 (1.00 to 1.20)", "met |"],
        ["1.06 (1.00 to 1.20)", "**missed** |"],
        ["0.56", "met |"],
        ["40", "**missed** |"],
    ]


def test_the_last_of_two_measurements_counts(tmp_path: Path) -> None:
    file = tmp_path / "speed.csv"
    found = [row("resnet18", SOFT, ratio=ratio) for ratio in (2, 3)]
    with file.open("w", newline="", encoding="utf-8") as target:
        names = [*found[0]][:9]
        writer = csv.DictWriter(target, [*names, "threads", "ratio"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(found)
    assert [entry["ratio"] for entry in cost_page.read(file)] == ["3"]
