"""The metrics that Quantus has too, against the installed quantus."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from captum_pullback.study import metrics

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # quantus's own, at import
    quantus = pytest.importorskip("quantus", reason="quantus is not installed")

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    ).eval()  # fmt: skip


@pytest.fixture
def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    inputs, maps = draw.normal(size=(2, 3, 1, 4, 4)).astype(np.float32)
    return inputs, np.array([0, 2, 1]), maps


def scored(metric: Any, model: nn.Module, batch: Any, **more: Any) -> np.ndarray:
    inputs, targets, maps = batch
    return np.array(
        metric(model=model, x_batch=inputs, y_batch=targets, a_batch=maps, channel_first=True,
               softmax=False, device="cpu", **more)
    )  # fmt: skip


def own(metric: Any, model: nn.Module, batch: Any, **more: Any) -> np.ndarray:
    inputs, targets, maps = (torch.tensor(part) for part in batch)
    return metric(model, inputs, [maps], targets, **more)[0].numpy()


def test_faithfulness_correlation(model, batch, monkeypatch) -> None:
    """Over all 120 pairs of pixels, which quantus is made to draw one after the other."""
    pairs = [np.array(pair) for pair in itertools.combinations(range(16), 2)]
    drawn = iter(pair for pair in pairs for _ in range(3))
    monkeypatch.setattr(np.random, "choice", lambda *_, **__: next(drawn))
    theirs = scored(
        quantus.FaithfulnessCorrelation(
            nr_runs=120, subset_size=2, perturb_baseline=0.3, return_aggregate=False,
            normalise=False,
        ),
        model,
        batch,
    )  # fmt: skip
    found = own(
        metrics.faithfulness_correlation, model, batch,
        baselines=0.3, features=None, subset_size=2, samples=120,
    )  # fmt: skip
    assert found == pytest.approx(theirs, abs=1e-5)
    assert len(set(found)) == 3
