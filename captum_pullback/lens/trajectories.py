"""Effective weights over training: their similarities and trajectories."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal

import numpy as np

from captum_pullback.lens import similarity as measures
from captum_pullback.lens.arrays import Floats, Singles
from captum_pullback.lens.reading import Reader
from captum_pullback.lens.recording import Rows
from captum_pullback.lens.similarity import Similarity, Subclasses

__all__ = ["accuracy", "projected", "scikit_learn", "similarity", "subclasses", "unit_rows"]


def similarity(reader: Reader, rows: Rows) -> Similarity:
    """See `TrainingLens.similarity`."""
    key, labels = reader.key(rows), reader.watched.labels.numpy()
    matrices = [
        measures.class_similarity(measures.cosines(arrays[key]), labels)
        for arrays in reader.arrays()
    ]
    return measures.summarized(reader.recorded(), matrices)


def subclasses(reader: Reader, rows: Rows) -> Subclasses:
    """See `TrainingLens.subclasses`."""
    key = reader.key(rows)
    grams = [arrays[key] for arrays in reader.arrays()]
    return measures.subclasses(grams, reader.watched.labels.numpy())


def accuracy(reader: Reader) -> Floats:
    """See `TrainingLens.accuracy`."""
    reader.key("label")
    labels = reader.watched.labels.numpy()
    right = [float((a["logits"].argmax(1) == labels).mean()) for a in reader.arrays()]
    return np.array(right)


def unit_rows(reader: Reader, steps: Sequence[int] | None) -> Singles:
    """See `TrainingLens.rows`."""
    reader.key("label")
    rows = np.stack([arrays["rows"] for arrays in reader.arrays(steps)])
    norms = np.linalg.norm(rows, axis=2, keepdims=True)
    return (rows / np.where(norms > 0, norms, 1)).astype(np.float32)


def projected(rows: Singles, method: Literal["pca", "tsne"], seed: int) -> Floats:
    """Project rows (S, N, D) to two dimensions, (S, N, 2): see `TrainingLens.projection`."""
    flat = rows.reshape(-1, rows.shape[2]).astype(np.float64)
    flat -= flat.mean(0)
    _, _, axes = np.linalg.svd(flat, full_matrices=False)
    # An axis has no sign of its own: make its largest entry positive.
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])
    places = flat @ (axes * signs[:, None])[: 2 if method == "pca" else 30].T
    if method == "tsne":
        spread = max(float(places[:, 0].std()), 1e-12)
        tsne = scikit_learn("manifold").TSNE(
            perplexity=min(30.0, (len(flat) - 1) / 3),
            init=(places[:, :2] / spread * 1e-4).astype(np.float32),
            random_state=seed,
        )
        places = tsne.fit_transform(places.astype(np.float32))
    return np.asarray(places, dtype=np.float64).reshape(*rows.shape[:2], 2)


def scikit_learn(module: str) -> Any:
    """Import a module of scikit-learn, which only t-SNE and the digits need."""
    try:
        return import_module(f"sklearn.{module}")
    except ImportError as error:
        raise ImportError("this needs scikit-learn: pip install 'captum-pullback[lens]'") from error
