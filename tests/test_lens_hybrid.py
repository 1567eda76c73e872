"""The lens on a small hybrid: joined classes, and whether their hidden halves come apart."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from snapshot import hooks
from torch import nn
from torchvision.transforms.functional import to_pil_image

from benchmarks import lens_hybrid

HIDDEN = np.repeat([0, 1, 2, 3], 3)
LABELS = HIDDEN // 2


def test_each_class_is_joined_with_the_next() -> None:
    assert lens_hybrid.joined(torch.arange(6)).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1], 1.0),
        ([1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1], 1.0),  # which is which does not count
        ([0, 0, 1, 1, 1, 1, 0, 1, 0, 1, 0, 1], (5 / 6 + 4 / 6) / 2),
        ([0] * 12, 0.5),
    ],
)
def test_agreement_of_groups_with_hidden_classes(groups: list[int], expected: float) -> None:
    found = lens_hybrid.agreement(np.array(groups), HIDDEN, LABELS)
    assert found == pytest.approx(expected)


def test_agreement_by_chance() -> None:
    # Of three and three, k of the one half meet its group with the hypergeometric probability.
    groups = np.array([0, 0, 0, 1, 1, 1] * 2)
    ways = [math.comb(3, k) ** 2 for k in range(4)]
    expected = sum(max(k, 3 - k) / 3 * way for k, way in enumerate(ways)) / sum(ways)
    mean, most = lens_hybrid.by_chance(groups, HIDDEN, LABELS)
    assert mean == pytest.approx(expected, abs=0.01)
    assert mean < most <= 1


def test_cosines_of_hidden_classes() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [1, 0], [0.6, 0.8], [-1, 0], [0, -1]])
    hidden = np.repeat([0, 1, 2, 3], 2)
    within, between = lens_hybrid.apart(vectors @ vectors.T, hidden)
    assert within == pytest.approx((1 + 1 + 0.6 + 0) / 4)
    # Of 2 and 3: (1, 0) and (0.6, 0.8) with (-1, 0) and (0, -1).
    assert between == pytest.approx((0 + (-1 + 0 - 0.6 - 0.8) / 4) / 2)


def test_features_are_what_the_last_layer_gets() -> None:
    model = lens_hybrid.build(lens_hybrid.argparse.Namespace(), 3).eval()
    inputs = torch.randn(2, 3, 32, 32)
    found = lens_hybrid.features(model, inputs)
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        torch.testing.assert_close(last(found), model(inputs))
    assert not hooks(model)


def test_a_run_from_photographs_to_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 16), ("val", 3)):
        for number in range(4):
            folder = tmp_path / "data" / split / f"class{number}"
            folder.mkdir(parents=True)
            for n in range(count):
                picture = torch.rand(3, 64, 64, generator=generator)
                to_pil_image(picture).save(folder / f"{n}.png")
    results, drawn = tmp_path / "lens_hybrid.json", tmp_path / "lens_hybrid.png"
    given = [
        "--data", str(tmp_path / "data"), "--out", str(tmp_path / "runs"), "--epochs", "1",
        "--watched", "3", "--seeds", "0", "1", "--results", str(results), "--figure", str(drawn),
    ]  # fmt: skip
    lens_hybrid.main(given)
    result = json.loads(results.read_text(encoding="utf-8"))
    assert result["examples"] == 12
    assert [run["steps"] for run in result["runs"]] == [[0, 1], [0, 1]]
    for run in result["runs"]:
        assert len(run["moved"]) == 1
        assert all(0.5 <= value <= 1 for value in run["agreement"].values())
    assert drawn.stat().st_size > 0

    from benchmarks import lens_page

    monkeypatch.setattr(lens_page, "RESULTS", results)
    within = [run["within"][-1] for run in result["runs"]]
    row = next(
        line for line in lens_page.trajectory_table().splitlines() if "within a class" in line
    )
    assert f"{sum(within) / 2:.3f} ± " in row.replace("\N{MINUS SIGN}", "-").split("|")[-2]
    lens_hybrid.main(given)  # nothing is left to train
    assert json.loads(results.read_text(encoding="utf-8"))["runs"] == result["runs"]
