"""The adapter for Quantus, against the installed quantus."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from captum_pullback import ExcitationPullback
from captum_pullback.quantus import explain


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)
    ).eval()  # fmt: skip


@pytest.fixture
def batch() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    return draw.normal(size=(4, 1, 8, 8)).astype(np.float32), np.array([0, 2, 1, 2])


def test_is_the_pullback(batch) -> None:
    inputs, targets = batch
    model = network()
    own = ExcitationPullback(model, 0.7, multiply_by_inputs=True).attribute(
        torch.tensor(inputs), torch.tensor(targets)
    )
    found = explain(model, inputs, targets, temperature=0.7, multiply_by_inputs=True)
    assert np.array_equal(found, own.numpy())
    reduced = explain(
        model, inputs, targets, temperature=0.7, multiply_by_inputs=True, reduce_axes=(1, 2)
    )
    assert np.allclose(reduced, own.numpy().sum((1, 2), keepdims=True), atol=1e-6)


def test_double_precision_stays(batch) -> None:
    assert explain(network().double(), *batch).dtype == np.float64


def test_inside_quantus(batch) -> None:
    """Quantus's own explanation is the pullback at temperature 0, and its scores agree."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantus's own, at import
        quantus = pytest.importorskip("quantus", reason="quantus is not installed")
    inputs, targets = batch
    model = network()

    def score(function, **options) -> np.ndarray:
        metric = quantus.MaxSensitivity(
            nr_samples=5, lower_bound=0.1, disable_warnings=True, display_progressbar=False
        )
        np.random.seed(0)  # noqa: NPY002  (what quantus draws from)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.array(
                metric(
                    model=model,
                    x_batch=inputs,
                    y_batch=targets,
                    explain_func=function,
                    explain_func_kwargs=options,
                    channel_first=True,
                )
            )

    plain = score(quantus.explain, method="Gradient")
    assert np.allclose(score(explain, temperature=0.0), plain, rtol=1e-5)
    soft = score(explain, temperature=1.0)
    assert soft.shape == (4,)
    assert (soft < plain).all()
