"""The metrics that methods are scored by, as reports show them: title, direction, source, meaning.

What computes them is in `captum_pullback.study.metrics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from captum_pullback.study.metrics.disturbances import GAUSSIAN, SENSITIVITY_RADIUS

_YEH = "Yeh et al. 2019, arXiv 1901.09392; captum.metrics"


@dataclass(frozen=True)
class Metric:
    """A metric as reports show it.

    Attributes:
        title: For people.
        better: ``"lower"`` or ``"higher"``.
        source: Who proposed it, and whose code it is.
        meaning: What the number is.
        of_machine: Whether it depends on how fast the machine is; all others are the same to the
            last digit when they are measured again on a CPU.
    """

    title: str
    better: str
    source: str
    meaning: str
    of_machine: bool = False


METRICS: dict[str, Metric] = {
    "infidelity": Metric(
        "Infidelity, squares",
        "lower",
        _YEH + ", normalize=True",
        "squares of 1/2 and 1/4 of the side filled with uniform noise; at the attribution's best "
        "scale; in squared units of the score",
    ),
    "infidelity_raw": Metric(
        "Infidelity, squares, raw", "lower", _YEH, "the same squares, at the scale as it is"
    ),
    "infidelity_gaussian": Metric(
        "Infidelity, Gaussian",
        "lower",
        _YEH + ", normalize=True",
        f"Gaussian noise of {GAUSSIAN:g} of the pixels' range; at the attribution's best scale",
    ),
    "infidelity_gaussian_raw": Metric(
        "Infidelity, Gaussian, raw", "lower", _YEH, "the same noise, at the scale as it is"
    ),
    "max_sensitivity": Metric(
        "Max-sensitivity",
        "lower",
        _YEH,
        f"greatest relative change under uniform noise within {SENSITIVITY_RADIUS:g} of the "
        "pixels' range",
    ),
    "box_share": Metric(
        "Share in the box",
        "higher",
        "as AttributionLocalisation, Kohlbrenner et al. 2020, arXiv 1910.09840",
        "share of the positive part of the attribution, summed over channels, inside the object's "
        "box; random noise shows the box's share of the picture",
    ),
    "pointing_game": Metric(
        "Pointing game",
        "higher",
        "Zhang et al. 2018, arXiv 1608.00507",
        "whether the greatest attribution, summed over channels, lies inside the box",
    ),
    "convergence_delta": Metric(
        "Convergence delta",
        "lower",
        "Sundararajan et al. 2017, arXiv 1703.01365; captum's compute_convergence_delta",
        "how far the attributions' sum is from the score's rise above the baseline's, absolute; "
        "for methods that should be complete",
    ),
    "random_logit": Metric(
        "Random-logit test",
        "lower",
        "Sixt et al. 2020, arXiv 1912.09818",
        "absolute Spearman correlation of the map, summed over channels, with that of a random "
        "other class: 0 if one map does not tell the other",
    ),
    "randomisation": Metric(
        "Cascading randomisation",
        "lower",
        "Adebayo et al. 2018, arXiv 1810.03292",
        "Spearman correlation of absolute maps before and after the network's parts are "
        "reinitialised from the output back; a curve",
    ),
    "time": Metric(
        "Time",
        "lower",
        "",
        "wall time per image over that of the plain gradient just before",
        of_machine=True,
    ),
    "memory": Metric(
        "Memory",
        "lower",
        "",
        "peak of what a call allocates per image, over that of the plain gradient",
        of_machine=True,
    ),
}


def chosen(names: Sequence[str]) -> list[str]:
    """These metrics in the order in which reports show them.

    Raises:
        KeyError: One of them is unknown.
    """
    for name in names:
        METRICS[name]
    return [name for name in METRICS if name in names]
