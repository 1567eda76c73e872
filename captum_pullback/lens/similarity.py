"""Similarity of effective weights, measured from matrices of inner products.

Everything here takes Gram matrices, ``G[i, j] = <w_i, w_j>`` over N examples: weights of any size
are reduced to N x N numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from captum_pullback.lens.arrays import Floats

__all__ = ["Similarity", "Subclasses", "class_similarity", "cosines", "subclasses", "summarized"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Similarity:
    r"""Mean cosine similarity of effective weights over training (arXiv 2511.05628).

    Attributes:
        steps: The steps, (S,).
        within: Mean over pairs of different examples of one class, every class with equal weight,
            (S,).
        between: Mean over pairs of examples of two classes, every pair of classes with equal
            weight, (S,).
        matrix: The mean for each pair of classes, (S, K, K); the diagonal leaves out an example's
            pair with itself.
    """

    steps: Ints
    within: Floats
    between: Floats
    matrix: Floats

    @property
    def margin(self) -> Floats:
        """Within minus between, (S,)."""
        margin: Floats = self.within - self.between
        return margin

    @property
    def per_class(self) -> Floats:
        """The mean within each class, (S, K)."""
        diagonal: Floats = np.diagonal(self.matrix, axis1=1, axis2=2)
        return diagonal


@dataclass(frozen=True)
class Subclasses:
    """Two groups in each class, found at the last step and followed back.

    Attributes:
        groups: 0 or 1 for each example, (N,).
        within: For each step and class, mean cosine within the groups, (S, K).
        between: For each step and class, mean cosine between the two groups, (S, K).
        share: For each step and class, the share of the class's variance that lies along its
            leading direction, 0 to 1, (S, K).
    """

    groups: Ints
    within: Floats
    between: Floats
    share: Floats


def cosines(gram: npt.ArrayLike) -> Floats:
    """Return cosine similarities from inner products; 0 for vectors of length 0."""
    inner = np.asarray(gram, dtype=np.float64)
    norms = np.sqrt(np.clip(np.diagonal(inner), 0, None))
    inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    result: Floats = inner * inverse[:, None] * inverse[None]
    return result


def class_similarity(similarity: npt.ArrayLike, labels: npt.ArrayLike) -> Floats:
    """Average a similarity over the pairs of examples of each pair of classes.

    Args:
        similarity: Shape (N, N), symmetric.
        labels: Shape (N,).

    Returns:
        Shape (K, K), in the order of the sorted labels. An example's pair with itself does not
        count; a class of one example has NaN on the diagonal.
    """
    values = np.array(similarity, dtype=np.float64)
    answers = np.asarray(labels)
    member = (answers[:, None] == np.unique(answers)[None]).astype(np.float64)
    own = np.diagonal(values)
    sums = member.T @ values @ member - np.diag(member.T @ own)
    counts = member.sum(0)
    pairs = np.outer(counts, counts) - np.diag(counts)
    result: Floats = np.divide(sums, pairs, out=np.full_like(sums, np.nan), where=pairs > 0)
    return result


def summarized(steps: npt.ArrayLike, matrices: list[Floats]) -> Similarity:
    """Average the matrix of each step within and between classes."""
    matrix = np.stack(matrices)
    classes = matrix.shape[1]
    off = ~np.eye(classes, dtype=bool)
    within = np.nanmean(np.diagonal(matrix, axis1=1, axis2=2), axis=1)
    between = matrix[:, off].mean(1) if classes > 1 else np.full(len(matrix), np.nan)
    return Similarity(np.asarray(steps, dtype=np.int64), within, between, matrix)


def subclasses(grams: list[Floats], labels: npt.ArrayLike) -> Subclasses:
    """Split each class in two along the leading direction of its last weights.

    The split is the sign of the first principal component of the normalized weights of the class
    at the last step; the share of variance says how much of a split it is.
    """
    answers = np.asarray(labels)
    classes = np.unique(answers)
    steps = [cosines(gram) for gram in grams]
    groups = np.zeros(len(answers), dtype=np.int64)
    for label in classes:
        members = np.flatnonzero(answers == label)
        _, vectors = np.linalg.eigh(_centered(steps[-1][np.ix_(members, members)]))
        groups[members] = vectors[:, -1] > 0
    shape = (len(steps), len(classes))
    within, between, share = (np.full(shape, np.nan) for _ in range(3))
    for s, similarity in enumerate(steps):
        for k, label in enumerate(classes):
            members = np.flatnonzero(answers == label)
            block = similarity[np.ix_(members, members)]
            values = np.clip(np.linalg.eigvalsh(_centered(block)), 0, None)
            share[s, k] = values[-1] / values.sum() if values.sum() > 0 else np.nan
            pairs = class_similarity(block, groups[members])
            if pairs.shape == (2, 2):
                between[s, k] = pairs[0, 1]
            if not np.isnan(np.diagonal(pairs)).all():
                within[s, k] = np.nanmean(np.diagonal(pairs))
    return Subclasses(groups, within, between, share)


def _centered(gram: Floats) -> Floats:
    """Return inner products after subtracting the mean."""
    rows = gram.mean(0, keepdims=True)
    centered: Floats = gram - rows - rows.T + gram.mean()
    return centered
