"""benchmarks.deep_features: similarities and their correlations where they are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from handmade import Handmade
from scipy.stats import spearmanr
from snapshot import hooks
from torch import nn

from benchmarks import deep_features
from captum_pullback.zoo.reference import ReferenceNet


def test_agreements_are_shares_of_equal_gates_of_each_call(monkeypatch) -> None:
    """One module that is used twice, and photographs that do not come in one batch."""
    monkeypatch.setattr(deep_features, "BATCH", 2)
    relu = nn.ReLU()

    twice = Handmade(lambda net, x: net.relu(-net.relu(x) + 1.5), relu=relu)
    x = torch.tensor([[1.0, 2.0, -1.0, 3.0], [1.0, -2.0, -1.0, 1.0], [2.0, 2.0, 2.0, 2.0]])
    first, second = deep_features.agreements(twice, x)
    # Open at first: 1101, 1001, 1111; then, where the first is below 1.5: 1010, 1111, 0000.
    assert first.tolist() == [[1, 0.75, 0.75], [0.75, 1, 0.5], [0.75, 0.5, 1]]
    assert second.tolist() == [[1, 0.5, 0.5], [0.5, 1, 0], [0.5, 0, 1]]
    assert hooks(relu) == []


def test_gradients_of_a_linear_network_are_the_same_for_all() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 3))
    model[1].bias = nn.Parameter(torch.full((4,), 100.0))  # all gates are open
    found = deep_features.pulled(model, torch.randn(5, 3, 2, 2), [0, 2], 0.0)
    assert found.flatten().tolist() == pytest.approx([1.0] * 25, abs=1e-6)


def test_correlations_are_over_pairs_of_different_photographs() -> None:
    draw = np.random.default_rng(0)
    deep, other = (draw.normal(size=(6, 6)) for _ in range(2))
    deep, other = deep + deep.T, other + other.T
    chosen = np.array([0, 3, 3, 5])
    found = deep_features.followed({"features": deep, "same": deep**3, "other": other}, chosen)
    pairs = [(0, 3), (0, 3), (0, 5), (3, 5), (3, 5)]
    expected = spearmanr([deep[p] for p in pairs], [other[p] for p in pairs]).statistic
    assert found == {"same": pytest.approx(1), "other": pytest.approx(expected)}


def test_differences_are_paired(monkeypatch) -> None:
    monkeypatch.setattr(deep_features, "RESAMPLES", 20)
    draw = np.random.default_rng(0)
    deep = draw.normal(size=(9, 9))
    trained = {"features": deep + deep.T, "gates": deep + deep.T}
    fresh = {"features": deep + deep.T, "gates": -(deep + deep.T)}
    (row,) = deep_features.summarized(trained, [fresh, trained])
    assert row == {
        "similarity": "gates",
        "trained": [1, 1, 1],
        "untrained": [0, 0, 0],
        "difference": [1, 1, 1],
    }


def test_untrained_networks_have_the_statistics_of_the_pictures() -> None:
    pictures = torch.randn(30, 3, 16, 16) * 3 + 1
    settings = {"classes": 3, "widths": [4, 4, 8, 8], "batch_norm": True}
    model = deep_features.untrained(settings, 1, pictures)
    seen = model.conv1(pictures)
    torch.testing.assert_close(model.bn1.running_mean, seen.mean((0, 2, 3)).detach())
    torch.manual_seed(1)
    assert torch.equal(model.fc.weight, ReferenceNet(3, (4, 4, 8, 8)).fc.weight)
    assert not model.training


def test_all_similarities_of_a_small_network() -> None:
    """A photograph is most like itself in every respect; classes' maps are averaged."""
    torch.manual_seed(0)
    model = ReferenceNet(3, widths=(4, 4, 8, 8)).eval()
    x = torch.randn(4, 3, 16, 16)
    found = deep_features.similarities(model, x, [0, 2])
    for value in found.values():
        assert np.diagonal(value) == pytest.approx(np.ones(4), abs=1e-6)
        assert value == pytest.approx(value.T, abs=1e-9)
        assert (value <= 1 + 1e-9).all()
