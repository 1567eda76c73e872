"""The lens's measures of effective weights, against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training_runs import recorded, trained

from captum_pullback import effective_weights
from captum_pullback.lens.similarity import class_similarity, cosines, subclasses
from captum_pullback.lens.stepfiles import LensError


def test_similarities_against_brute_force(data: tuple[Tensor, Tensor]) -> None:
    models = trained(3, data)
    lens = recorded(models, data, batch_size=4, max_bytes=3000)  # parts, of examples and classes
    x, y = data
    for rows in ("label", "all"):
        measured = lens.similarity(rows)
        assert measured.steps.tolist() == [0, 10, 20, 30]
        for s, model in enumerate(models):
            weight, _ = effective_weights(model.eval(), x)
            vectors = weight.flatten(1) if rows == "all" else weight[range(10), y].flatten(1)
            sums: dict[tuple[int, int], list[float]] = {}
            for i in range(10):
                for j in range(10):
                    if i != j:
                        pair = (int(y[i]), int(y[j]))
                        cosine = F.cosine_similarity(vectors[i], vectors[j], dim=0)
                        sums.setdefault(pair, []).append(float(cosine))
            for (a, b), values in sums.items():
                assert measured.matrix[s, a, b] == pytest.approx(np.mean(values), abs=1e-5)
            within = np.mean([np.mean(sums[c, c]) for c in range(3)])
            between = np.mean([np.mean(sums[a, b]) for a, b in sums if a != b])
            assert measured.within[s] == pytest.approx(within, abs=1e-5)
            assert measured.between[s] == pytest.approx(between, abs=1e-5)
            assert measured.margin[s] == pytest.approx(within - between, abs=1e-5)
            assert measured.per_class[s, 0] == pytest.approx(np.mean(sums[0, 0]), abs=1e-5)


def test_class_of_one_example_and_weights_of_no_length() -> None:
    gram = np.array([[4.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    similarity = cosines(gram)
    np.testing.assert_allclose(similarity, [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 0]])
    matrix = class_similarity(similarity, [0, 0, 7])
    np.testing.assert_allclose(matrix, [[0.5, 0.0], [0.0, np.nan]])


def test_subclasses_are_found() -> None:
    generator = np.random.default_rng(0)
    centers = np.array([[3.0, 0, 0], [0, 3.0, 0], [0, 0, 3.0]])
    kinds = np.repeat([0, 1, 2], 6)  # two kinds in class 0, one in class 1
    vectors = centers[kinds] + 0.1 * generator.normal(size=(18, 3))
    labels = (kinds == 2).astype(int)
    found = subclasses([np.ones((18, 18)), vectors @ vectors.T], labels)
    assert len(set(found.groups[:6])) == len(set(found.groups[6:12])) == 1
    assert found.groups[0] != found.groups[6]
    assert found.within[1, 0] > 0.99
    assert abs(found.between[1, 0]) < 0.1
    assert found.share[1, 0] > 0.95
    assert found.between[1, 1] > 0.99
    np.testing.assert_allclose(found.between[0], 1)


def test_a_sketch_keeps_inner_products() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3000, 8), nn.ReLU(), nn.Linear(8, 2))
    x, y = torch.randn(6, 3, 1000), torch.tensor([0, 1, 0, 1, 0, 1])
    lens = recorded([model], (x, y), weights="label", kept=1024)
    rows = lens.rows()[0]
    assert rows.shape == (6, 1024)
    weight, _ = effective_weights(model, x, y)
    exact = F.normalize(weight.flatten(1), dim=1)
    np.testing.assert_allclose(rows @ rows.T, (exact @ exact.T).numpy(), atol=5 / math.sqrt(1024))
    with pytest.raises(LensError, match="all"):
        lens.similarity("all")


def test_projections(data: tuple[Tensor, Tensor]) -> None:
    pytest.importorskip("sklearn")
    lens = recorded(trained(3, data), data)
    places = lens.projection()
    assert places.shape == (4, 10, 2)
    flat = lens.rows().reshape(40, -1).astype(np.float64)
    _, values, axes = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    for axis in range(2):
        mine, svd = places[..., axis].ravel(), (flat - flat.mean(0)) @ axes[axis]
        assert abs(mine @ svd) == pytest.approx(values[axis] ** 2, rel=1e-4)
    np.testing.assert_array_equal(lens.projection("tsne"), lens.projection("tsne"))
