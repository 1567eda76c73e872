"""The figure: where the untuned pullback is better, and where worse, at a glance."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from benchmarks.compare import verdicts as of
from benchmarks.compare.methods import find

#: Told apart by people who do not see red and green, and each with its word.
COLORS = {"better": "#0072b2", "tie": "#d9d9d9", "worse": "#d55e00"}
INK = {"better": "white", "tie": "black", "worse": "white"}


def verdicts(summary: pd.DataFrame) -> Figure:
    """Metrics by networks: against Integrated Gradients, and against each metric's best rival."""
    networks = list(dict.fromkeys(summary["network"]))
    rows = {
        name: metrics for name, metrics in of.ROWS.items() if set(metrics) & set(summary["metric"])
    }
    figure = Figure(figsize=(9.6, 0.42 * len(rows) + 1.8), layout="constrained")
    figure.suptitle("The untuned pullback", fontsize=12, weight="bold")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, title, judge in (
        (axes[0], "against Integrated Gradients", of.against_ig),
        (axes[1], "against the best rival", of.against_best),
    ):
        for row, metrics in enumerate(rows.values()):
            for column, network in enumerate(networks):
                for found in filter(None, (judge(summary, network, name) for name in metrics)):
                    color = COLORS[found.verdict]
                    axis.add_patch(Rectangle((column, row), 1, 1, fc=color, ec="white", lw=2))
                    rival = find(found.other).title.replace(" ", "\n", 1)
                    axis.text(
                        column + 0.5, row + 0.5, found.verdict if axis is axes[0] else rival,
                        ha="center", va="center", linespacing=0.95, color=INK[found.verdict],
                        fontsize=8 if axis is axes[0] else 6.5,
                    )  # fmt: skip
        axis.set(xlim=(0, len(networks)), ylim=(len(rows), 0))
        axis.set_xticks([c + 0.5 for c in range(len(networks))], map(short, networks), fontsize=8)
        axis.set_yticks([r + 0.5 for r in range(len(rows))], list(rows), fontsize=9)
        axis.xaxis.tick_top()
        axis.tick_params(length=0)
        axis.set_title(title, fontsize=10, weight="bold", pad=8)
        for side in axis.spines.values():
            side.set_visible(False)
    words = ("the pullback is better", "not clearly different", "the pullback is worse")
    figure.legend(
        handles=[Patch(color=c, label=w) for c, w in zip(COLORS.values(), words, strict=True)],
        loc="outside lower center", ncols=3, fontsize=9, frameon=False,
    )  # fmt: skip
    return figure


def short(network: str) -> str:
    """A network's name on a narrow column."""
    return NAMES.get(network, network).replace(" ", "\n", 1)


#: What the networks of the page are called there.
NAMES = {
    "reference": "embedded",
    "reference_no_bn": "without BatchNorm",
    "hybrid": "hybrid",
    "efficientnet_lite0": "EfficientNet-Lite0",
}
