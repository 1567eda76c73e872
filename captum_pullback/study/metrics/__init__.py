"""Metrics for attributions: one function for each, with its source."""

from __future__ import annotations

from captum_pullback.study.metrics.answers import Answers
from captum_pullback.study.metrics.disturbances import gaussian, nearby, squares
from captum_pullback.study.metrics.faithfulness_correlation import faithfulness_correlation
from captum_pullback.study.metrics.faithfulness_estimate import faithfulness_estimate
from captum_pullback.study.metrics.flipping import area, deletion, insertion, pixel_flipping
from captum_pullback.study.metrics.focus import Mosaics, focus, mosaics
from captum_pullback.study.metrics.localization import box_share, pointing_game
from captum_pullback.study.metrics.monotonicity import monotonicity
from captum_pullback.study.metrics.sanity import (
    cascading_randomization,
    random_logit,
    randomized,
    similarity,
    spread,
    stages,
)
from captum_pullback.study.metrics.sensitivity import max_sensitivity

__all__ = [
    "Answers", "Mosaics", "area", "box_share", "cascading_randomization", "deletion",
    "faithfulness_correlation", "faithfulness_estimate", "focus", "gaussian", "insertion",
    "max_sensitivity", "monotonicity", "mosaics", "nearby", "pixel_flipping", "pointing_game",
    "random_logit", "randomized", "similarity", "spread", "squares", "stages",
]  # fmt: skip
