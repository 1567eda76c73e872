"""Measures of path stability: gates over training, from recorded gate states.

The path stability hypothesis (arXiv 2507.22832): gates settle early, and how far the final
pre-activation is from 0 predicts how settled a gate is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from captum_pullback.lens.arrays import Floats

__all__ = [
    "Settledness",
    "auc",
    "likeliest_temperature",
    "log_likelihood",
    "roc",
    "settledness",
    "step_weights",
]

Array = npt.NDArray[np.generic]

_BISECTIONS = 60
_BETAS = (1e-4, 1e4)  # of 1 / T: the interval in which the likelihood's maximum is searched


@dataclass(frozen=True)
class Settledness:
    """How well :math:`|z|` of a model predicts which of its gates are settled.

    Attributes:
        share: The share of gates that are settled, 0 to 1.
        auc: Probability that a settled gate has a larger :math:`|z|` than one that is not; NaN
            where there are none of either.
        false_positives: The ROC curve's abscissae: of the unsettled gates, the share above a
            threshold.
        true_positives: Its ordinates: of the settled ones.
    """

    share: float
    auc: float
    false_positives: Floats
    true_positives: Floats


def step_weights(steps: npt.ArrayLike) -> Floats:
    """Return the share of training for which each recorded step stands; they sum to 1.

    A step represents the time up to halfway to its neighbors (trapezoidal rule), so that records
    crowded at the start of training do not count for more.
    """
    at = np.asarray(steps, dtype=np.float64)
    if len(at) < 2:
        return np.ones(len(at))
    gaps = np.diff(at)
    weights = np.zeros(len(at))
    weights[:-1] += gaps / 2
    weights[1:] += gaps / 2
    shares: Floats = weights / weights.sum()
    return shares


def roc(score: npt.ArrayLike, positive: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return the ROC curve of a score: shares of negatives and of positives above each threshold.

    Equal scores give one sloping step, which counts half of their pairs.
    """
    values, truth = np.asarray(score).ravel(), np.asarray(positive, dtype=bool).ravel()
    order = np.argsort(-values, kind="stable")
    values, truth = values[order], truth[order]
    last = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
    hits = np.cumsum(truth)[last].astype(np.float64)
    misses = (last + 1) - hits
    if not len(values) or not hits[-1] or not misses[-1]:
        return np.array([0.0, 1.0]), np.array([np.nan, np.nan])
    return np.append(0.0, misses / misses[-1]), np.append(0.0, hits / hits[-1])


def auc(score: npt.ArrayLike, positive: npt.ArrayLike) -> float:
    """Return the area under the ROC curve; NaN where all are positive or none is."""
    return _area(*roc(score, positive))


def _area(across: Floats, up: Floats) -> float:
    return float(((up[1:] + up[:-1]) / 2 * np.diff(across)).sum())


def settledness(z: npt.ArrayLike, settled: npt.ArrayLike, points: int = 200) -> Settledness:
    """Return the ROC of :math:`|z|`, at as many points of the curve as a figure needs."""
    truth = np.asarray(settled, dtype=bool)
    across, up = roc(np.abs(np.asarray(z)), truth)
    area = _area(across, up)
    grid = np.linspace(0, 1, points)
    return Settledness(float(truth.mean()), area, grid, np.interp(grid, across, up))


def log_likelihood(z: Floats, opened: Floats, temperature: float) -> float:
    r"""Mean of :math:`p \log \sigma(z/T) + (1-p) \log \sigma(-z/T)` over gates; T is above 0."""
    scaled = z / temperature
    return float(
        np.mean(-opened * np.logaddexp(0, -scaled) - (1 - opened) * np.logaddexp(0, scaled))
    )


def likeliest_temperature(z: npt.ArrayLike, opened: npt.ArrayLike) -> Floats:
    r"""Return the T for which :math:`\sigma(z / T)` best fits the probability that a gate is open.

    Maximum likelihood over T, of gates that were open for a share p of the time:

    .. math::
        \max_T \sum_i p_i \log \sigma(z_i / T) + (1 - p_i) \log \sigma(-z_i / T)

    which is concave in 1 / T: logistic regression with one slope and no intercept.

    Args:
        z: Pre-activations, (G, M): M gates in each of G groups that have a temperature each.
        opened: The share of time for which each was open, 0 to 1, (G, M).

    Returns:
        Temperatures, (G,), in units of z, from 1e-4 (the sign of z was right for nearly all) to
        inf (z predicts nothing, or the opposite).
    """
    values = np.atleast_2d(np.asarray(z, dtype=np.float64))
    shares = np.atleast_2d(np.asarray(opened, dtype=np.float64))

    def slope(beta: Floats) -> Floats:
        # d/d(1/T) of the log-likelihood; the sigmoid in a form that cannot overflow.
        open_now = 0.5 * (1 + np.tanh(0.5 * beta[:, None] * values))
        result: Floats = (values * (shares - open_now)).mean(1)
        return result

    low, high = (np.full(len(values), beta) for beta in _BETAS)
    useless = slope(np.zeros(len(values))) <= 0
    for _ in range(_BISECTIONS):
        middle = np.sqrt(low * high)
        rises = slope(middle) > 0
        low, high = np.where(rises, middle, low), np.where(rises, high, middle)
    return np.where(useless, np.inf, 1 / np.sqrt(low * high))
