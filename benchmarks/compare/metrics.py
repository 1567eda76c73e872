"""The metrics that methods are scored by, as reports show them: title, direction, unit, source.

What computes them is in `captum_pullback.study.metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass

from captum_pullback.study.metrics.disturbances import GAUSSIAN, SENSITIVITY_RADIUS

_YEH = "Yeh et al. 2019, arXiv 1901.09392"

#: Cells of a side of the grid whose cells faithfulness correlation sets to the mean color.
CELLS = 4


@dataclass(frozen=True)
class Metric:
    """A metric as reports show it.

    Attributes:
        title: For people.
        better: ``"lower"`` or ``"higher"``.
        unit: Of its numbers.
        source: Who proposed it.
        meaning: What the number is.
        of_machine: Whether it depends on how fast the machine is; all others are the same to the
            last digit when they are measured again on a CPU.
    """

    title: str
    better: str
    unit: str
    source: str
    meaning: str
    of_machine: bool = False


def _cost(title: str, unit: str, meaning: str) -> Metric:
    return Metric(title, "lower", unit, "", meaning, of_machine=True)


METRICS: dict[str, Metric] = {
    "infidelity": Metric(
        "Infidelity",
        "lower",
        "score²",
        _YEH,
        "squares of 1/2 and 1/4 of the side filled with uniform noise; at the map's best scale",
    ),
    "faithfulness_correlation": Metric(
        "Faithfulness correlation",
        "higher",
        "\N{MINUS SIGN}1 to 1",
        "Bhatt et al. 2020, arXiv 2005.00631",
        f"cells of a {CELLS} x {CELLS} grid set to the mean color, one at a time: Pearson's "
        "correlation of the map's sum in the cell with the drop of the score",
    ),
    "max_sensitivity": Metric(
        "Max-sensitivity",
        "lower",
        "relative",
        _YEH,
        f"greatest change of the map, divided by its norm, under uniform noise within "
        f"{SENSITIVITY_RADIUS:g} of the pixels' range",
    ),
    "box_share": Metric(
        "Share in the box",
        "higher",
        "0 to 1",
        "Kohlbrenner et al. 2020, arXiv 1910.09840",
        "share of the map's positive part, summed over channels, inside the object's box",
    ),
    "pointing_game": Metric(
        "Pointing game",
        "higher",
        "0 to 1",
        "Zhang et al. 2018, arXiv 1608.00507",
        "whether the greatest value of the map, summed over channels, lies inside the box",
    ),
    "mosaic_share": Metric(
        "Share in the quadrant",
        "higher",
        "0 to 1",
        "Böhle et al. 2021, arXiv 2104.00032",
        "four photographs of four classes in one picture, each at half size: share of the map's "
        "positive part in the quadrant of the class; 0.25 by chance",
    ),
    "random_logit": Metric(
        "Random-logit test",
        "lower",
        "0 to 1",
        "Sixt et al. 2020, arXiv 1912.09818",
        "absolute Spearman correlation of the map, summed over channels, with that of a random "
        "other class: 1 if the map does not depend on the class",
    ),
    "infidelity_gaussian": Metric(
        "Infidelity, small noise",
        "lower",
        "score²",
        _YEH,
        f"Gaussian noise of {GAUSSIAN:g} of the pixels' range; at the map's best scale",
    ),
    "infidelity_raw": Metric(
        "Infidelity, own scale",
        "lower",
        "score²",
        _YEH,
        "the same squares, with the map at its own scale",
    ),
    "time": _cost(
        "Time",
        "plain gradients",
        "wall time divided by that of the plain gradient, in alternating calls",
    ),
    "milliseconds": _cost("Time", "ms", "wall time per photograph"),
    "memory": _cost(
        "Memory",
        "plain gradients",
        "peak memory that a call allocates, divided by that of the plain gradient",
    ),
    "mebibytes": _cost("Memory", "MiB", "peak memory per photograph"),
}
