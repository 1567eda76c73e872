"""The tables of ``docs/temperature.md``, from ``benchmarks/results/temperature_*.csv``.

``python -m benchmarks.numbers`` puts them there, so that no number is typed by hand.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks import markdown
from benchmarks.intervals import Array, of_mean, resampled

RESULTS = Path(__file__).with_name("results")
CHOSEN, PUBLISHED, GRADIENT, INTEGRATED = "1 output", "T = 0.3", "gradient", "Integrated Gradients"
GAMMA = "1 gamma"
HALVES = {"choose": "chose", "report": "held back"}
#: Of the candidates, by their names in the results.
CANDIDATES = {
    "T = 0.3": "T = 0.3",
    "T = 1": "T = 1",
    "0.5 deviation": "standard deviation, c = 0.5",
    "1 deviation": "standard deviation, c = 1",
    "1 root mean square": "root mean square, c = 1",
    "1 deviation per channel": "standard deviation of each channel, c = 1",
    "1 median size": "median of \\|z\\|, c = 1",
    "1 Mills": "deviation by Mills' ratio, c = 1",
    "1 mean open": "mean of what is above 0, c = 1",
    "1 sides": "lesser of the means above and below 0, c = 1",
    "1 overlap": "lesser of the mean output and its mirror image, c = 1",
    "1 gamma": "weight of the BatchNorm before the gate, else mean output, c = 1",
    "0.5 mean output": "mean output, c = 0.5",
    "1 mean output": "**mean output, c = 1**",
    "1.5 mean output": "mean output, c = 1.5",
    "1 mean output, normal": "mean output, c = 1, normal distribution for the logistic one",
    "1.5 mean output, normal": "the same, c = 1.5",
}
#: How much closer than the gradient's a candidate's maps may be to those of a random class.
MARGIN = 0.05


class Estimate(NamedTuple):
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        text = f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"
        return text.replace("-", "\N{MINUS SIGN}")


@functools.cache
def scores(stage: str) -> pd.DataFrame:
    """The scores of a stage, by network, method and photograph."""
    table = pd.read_csv(RESULTS / f"temperature_{stage}.csv")
    return table.set_index(["network", "method", "photograph"]).drop(columns="half")


def networks(stage: str) -> list[str]:
    """The networks of a stage, in the order in which they were measured."""
    return list(dict.fromkeys(scores(stage).index.get_level_values("network")))


def pair(stage: str, network: str, method: str, other: str, quantity: str) -> tuple[pd.Series, ...]:
    """A quantity of two methods, photograph by photograph."""
    column = scores(stage)[quantity].loc[network]
    one, two = column.loc[method], column.loc[other]
    return one, two.loc[one.index]


def times(stage: str, network: str, method: str, other: str) -> Estimate:
    """The geometric mean over photographs of one method's infidelity over the other's."""
    one, two = pair(stage, network, method, other, "infidelity")
    logs = np.log((one / two).to_numpy())
    low, high = resampled(np.mean, logs)
    return Estimate(*np.exp([logs.mean(), low, high]))


def ratio(network: str, quantity: str, other: str = INTEGRATED) -> Estimate:
    """A mean of what was chosen over that of another method."""
    one, two = (part.to_numpy() for part in pair("report", network, CHOSEN, other, quantity))

    def of_means(first: Array, second: Array, axis: int = -1) -> Array:
        return first.mean(axis=axis) / second.mean(axis=axis)

    return Estimate(float(one.mean() / two.mean()), *resampled(of_means, one, two))


def more(network: str, quantity: str, other: str) -> Estimate:
    """By how much the mean of what was chosen is above another method's."""
    one, two = pair("report", network, CHOSEN, other, quantity)
    mean, half = of_mean((one - two).dropna().tolist())
    return Estimate(mean, mean - half, mean + half)


def judged(estimate: Estimate, limit: float, *, above: bool = False) -> str:
    """An estimate, and whether it keeps a limit: "open" where the interval holds the limit."""
    if estimate.low <= limit <= estimate.high:
        return f"{estimate}, open"
    return f"{estimate}, {'yes' if (estimate.low > limit) == above else '**no**'}"


def wanted_table() -> str:
    """What was wanted of the default on the held-back networks."""
    head = [
        "held-back network",
        "infidelity over IG's, at most 0.75",
        "faithfulness correlation less IG's, above 0",
        "max-sensitivity over IG's, at most 0.5",
        "share in the box less IG's",
        "cosine with a random class less the gradient's, at most 0",
        "cosine with the runner-up less the gradient's, at most 0",
    ]
    lines = []
    for network in networks("report"):
        lines.append(
            [
                network,
                judged(times("report", network, CHOSEN, INTEGRATED), 0.75),
                judged(more(network, "correlation", INTEGRATED), 0.0, above=True),
                judged(ratio(network, "max_sensitivity"), 0.5),
                str(more(network, "box_share", INTEGRATED)),
                judged(more(network, "random_class", GRADIENT), 0.0),
                judged(more(network, "runner_up", GRADIENT), 0.0),
            ]
        )
    return markdown.table(head, lines)


def class_table() -> str:
    """How alike the maps of two classes are, by method, on the held-back networks."""
    head = ["held-back network"]
    head += [f"{other}, {how}" for other in ("random class", "runner-up") for how in HOW.values()]
    lines = []
    for network in networks("report"):
        table = scores("report").loc[network].groupby("method").mean()
        columns = [f"{other}{suffix}" for other in ("random_class", "runner_up") for suffix in HOW]
        cells = [
            " / ".join(f"{table[column][method]:.2f}" for method in (GRADIENT, INTEGRATED, CHOSEN))
            for column in columns
        ]
        lines.append([network, *(cell.replace("-", "\N{MINUS SIGN}") for cell in cells)])
    return markdown.table(head, lines)


#: How two maps are compared, by the ends of the columns' names.
HOW = {"": "cosine", "_ranks": "rank correlation"}


def gamma_table() -> str:
    """The default beside BatchNorm's own weight, on all networks that have BatchNorm."""
    lines = []
    for stage, default in (("choose", "1 mean output"), ("report", CHOSEN)):
        for network in networks(stage):
            there = set(scores(stage).loc[network].index.get_level_values("method"))
            if GAMMA not in there or times(stage, network, GAMMA, default).value == 1:
                continue
            both = [str(times(stage, network, method, GRADIENT)) for method in (default, GAMMA)]
            beside = str(times(stage, network, GAMMA, default))
            lines.append([network, HALVES[stage], *both, beside])
    head = ["network", "half", "mean output", "BatchNorm's weight", "the latter over the former"]
    return markdown.table(head, lines)


def without_norms_table() -> str:
    """The default beside the plain gradient, on the held-back networks without normalization."""
    head = [
        "held-back network",
        "infidelity over the gradient's, at most 1",
        "faithfulness correlation less the gradient's, at least 0",
        "max-sensitivity over the gradient's, at most 1",
    ]
    lines = [
        [
            network,
            judged(times("report", network, CHOSEN, GRADIENT), 1.0),
            judged(more(network, "correlation", GRADIENT), 0.0, above=True),
            judged(ratio(network, "max_sensitivity", GRADIENT), 1.0),
        ]
        for network in networks("report")
        if network.endswith("nonorm")
    ]
    return markdown.table(head, lines)


def held_back_table() -> str:
    """Infidelity over the plain gradient's, on the held-back networks."""
    methods = (INTEGRATED, PUBLISHED, "T = 1", CHOSEN)
    lines = [
        [network, *(str(times("report", network, method, GRADIENT)) for method in methods)]
        for network in networks("report")
    ]
    return markdown.table(["held-back network", *methods[:-1], "the default"], lines)


def candidates_table() -> str:
    """Each candidate on the networks that chose, beside the plain gradient."""
    head = [
        "temperature",
        "infidelity over the gradient's",
        "on the worst network",
        "faithfulness correlation less the gradient's",
        "share in the box less the gradient's",
        "cosine with a random class less the gradient's, worst network",
        "with the runner-up",
    ]
    lines = []
    for method, name in CANDIDATES.items():
        found = [
            network
            for network in networks("choose")
            if method in scores("choose").loc[network].index.get_level_values("method")
        ]
        logs = [np.log(times("choose", network, method, GRADIENT).value) for network in found]
        changes = {
            quantity: [
                float(np.subtract(*pair("choose", network, method, GRADIENT, quantity)).mean())
                for network in found
            ]
            for quantity in ("correlation", "box_share", "random_class", "runner_up")
        }
        worst = max(changes["random_class"])
        few = "" if len(found) == len(networks("choose")) else f" ({len(found)} networks)"
        cells = [
            f"{np.exp(np.mean(logs)):.2f}{few}",
            f"{np.exp(max(logs)):.2f}",
            f"{np.mean(changes['correlation']):.3f}",
            f"{np.nanmean(changes['box_share']):.3f}",
            f"{worst:.2f}" + (", too much" if worst > MARGIN else ""),
            f"{max(changes['runner_up']):.2f}",
        ]
        lines.append([name, *(cell.replace("-", "\N{MINUS SIGN}") for cell in cells)])
    return markdown.table(head, lines)


def tables() -> dict[str, str]:
    """Every table of the page."""
    return {
        "temperature: candidates": candidates_table(),
        "temperature: held back": held_back_table(),
        "temperature: wanted": wanted_table(),
        "temperature: without norms": without_norms_table(),
        "temperature: classes": class_table(),
        "temperature: gamma": gamma_table(),
    }
