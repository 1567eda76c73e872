"""The metrics that Quantus has too, against the installed quantus."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Saliency
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


@pytest.mark.parametrize("step", [1, 4])
def test_faithfulness_estimate(model, batch, step) -> None:
    theirs = scored(
        quantus.FaithfulnessEstimate(
            features_in_step=step, perturb_baseline=0.3, normalise=False),
        model, batch,
    )  # fmt: skip
    found = own(
        metrics.faithfulness_estimate, model, batch,
        baselines=0.3, features=None, features_in_step=step,
    )  # fmt: skip
    assert found == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("step", [1, 4])
def test_monotonicity(model, batch, step) -> None:
    theirs = scored(
        quantus.MonotonicityCorrelation(
            features_in_step=step, nr_samples=2, perturb_baseline=0.3, normalise=False),
        model, batch,
    )  # fmt: skip
    found = own(
        metrics.monotonicity, model, batch,
        low=0.3, high=0.3, features=None, features_in_step=step,
    )  # fmt: skip
    assert found == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("step", [1, 4])
def test_pixel_flipping(model, batch, step) -> None:
    """Quantus leaves out the first point. Its area fails under numpy 2."""
    options = {"features_in_step": step, "perturb_baseline": 0.3, "normalise": False}
    theirs = scored(quantus.PixelFlipping(**options), model, batch)
    found = own(
        metrics.pixel_flipping, model, batch,
        baselines=0.3, features=None, features_in_step=step,
    )  # fmt: skip
    assert found[:, 1:] == pytest.approx(theirs, abs=1e-5)


def test_focus(model, batch) -> None:
    _, _, maps = batch
    inside = np.array([[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 0, 0]]).astype(bool)
    theirs = scored(quantus.Focus(normalise=False), model, batch, custom_batch=inside)
    found = metrics.focus(torch.tensor(maps), torch.tensor(inside)).numpy()
    assert found == pytest.approx(theirs, abs=1e-6)


def test_random_logit(model, batch) -> None:
    """With quantus's draw of another class, and its Spearman correlation."""
    inputs, targets, _ = batch
    gradient = Saliency(model)

    def explain(model, inputs, targets, **_) -> np.ndarray:
        leaf = torch.tensor(inputs).requires_grad_()
        return gradient.attribute(leaf, torch.tensor(targets), abs=False).numpy()

    asked = []

    def noted(model, inputs, targets, **more) -> np.ndarray:
        asked.append(targets)
        return explain(model, inputs, targets, **more)

    metric = quantus.RandomLogit(
        num_classes=3, similarity_func=quantus.similarity_func.correlation_spearman,
        normalise=False,
    )  # fmt: skip
    maps = explain(model, inputs, targets)
    theirs = scored(metric, model, (inputs, targets, maps), explain_func=noted)
    found = metrics.random_logit(
        gradient, torch.tensor(inputs), torch.tensor(targets), torch.tensor(asked[-1]), abs=False
    )
    assert found.numpy() == pytest.approx(theirs, abs=1e-6)
