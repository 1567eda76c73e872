"""What attributions are measured by: one function for each metric, each with its source."""

from __future__ import annotations

from captum_pullback.study.metrics.answers import Answers
from captum_pullback.study.metrics.disturbances import gaussian, nearby, squares
from captum_pullback.study.metrics.faithfulness_correlation import faithfulness_correlation
from captum_pullback.study.metrics.localization import box_share, pointing_game
from captum_pullback.study.metrics.sanity import randomized, similarity, spread, stages
from captum_pullback.study.metrics.sensitivity import max_sensitivity

__all__ = [
    "Answers", "box_share", "faithfulness_correlation", "gaussian", "max_sensitivity", "nearby",
    "pointing_game", "randomized", "similarity", "spread", "squares", "stages",
]  # fmt: skip
