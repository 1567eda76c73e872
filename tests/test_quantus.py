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


def test_labels_of_any_type_are_class_numbers(batch) -> None:
    inputs, targets = batch
    model = network()
    expected = explain(model, inputs, targets)
    for given in (targets.astype(np.float32), targets.tolist(), targets[:, None], targets == 1):
        found = explain(model, inputs, given)
        if np.asarray(given).dtype == bool:
            expected_here = explain(model, inputs, (targets == 1).astype(int))
            assert np.array_equal(found, expected_here)
        else:
            assert np.array_equal(found, expected)
    for wrong in (targets + 0.5, targets[:2], targets.astype(str), targets * np.nan):
        with pytest.raises(
            ValueError, match="expected one whole number, the class, for each of 4 inputs"
        ):
            explain(model, inputs, wrong)


def test_without_targets_it_is_the_predicted_class(batch) -> None:
    inputs, _ = batch
    model = network()
    predicted = model(torch.tensor(inputs)).argmax(1)
    assert len(set(predicted.tolist())) > 1
    expected = ExcitationPullback(model).attribute(torch.tensor(inputs), predicted)
    assert np.array_equal(explain(model, inputs, None), expected.numpy())


def test_a_network_of_one_output_each_needs_no_target(batch) -> None:
    """Outputs (N,), with the labels of a regression, or none."""
    inputs, _ = batch
    model = nn.Sequential(network(), nn.Linear(3, 1), nn.Flatten(0))
    assert model(torch.tensor(inputs)).shape == (4,)
    expected = ExcitationPullback(model).attribute(torch.tensor(inputs)).numpy()
    for labels in (None, np.array([0.3, -1.5, 2.0, 7.1])):
        assert np.array_equal(explain(model, inputs, labels), expected)


def test_outputs_with_more_dimensions_need_targets(batch) -> None:
    model = nn.Sequential(network(), nn.Unflatten(1, (3, 1)))
    with pytest.raises(ValueError, match=r"outputs have the shape \(4, 3, 1\): pass targets"):
        explain(model, batch[0], None)


def test_modes_and_statistics_stay(batch) -> None:
    """Also of a network in training, whose BatchNorm counts what it sees."""
    inputs, targets = batch
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
                          nn.Linear(144, 3)).train()  # fmt: skip
    model[1].eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    explain(model, inputs, None)
    explain(model, inputs, targets)
    assert [module.training for module in model] == [True, False, True, True, True]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


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
