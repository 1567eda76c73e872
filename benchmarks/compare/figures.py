"""The figures: quality against cost, the temperature sweep, randomisation, paired differences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmarks.compare.methods import AT, METHODS, find
from benchmarks.compare.metrics import METRICS
from benchmarks.compare.statistics import REFERENCE, per_image

OURS, THEIRS, CONTROL = "#c2410c", "#1d4ed8", "#6b7280"
SWEPT = ("infidelity", "max_sensitivity", "box_share")
COMPARED = ("infidelity", "infidelity_gaussian", "max_sensitivity", "box_share")


def color(method: str) -> str:
    """Of a method's group: pullbacks, Captum's, controls."""
    if not find(method).knows_network:
        return CONTROL
    return OURS if "pullback" in method else THEIRS


def all_figures(scores: pd.DataFrame, summary: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """Those for which the table has the numbers, each with a name."""
    has = set(summary["metric"])
    if {"time", "infidelity"} <= has:
        yield "cost", against_cost(summary)
    if any(str(name).startswith(AT) for name in set(summary["method"])):
        yield "sweep", sweep(scores, summary)
    if "randomisation" in has:
        yield "randomisation", randomisation(summary)
    if REFERENCE in set(summary["method"]) and has & set(COMPARED):
        yield "differences", differences(scores)


def _axes(rows: int, columns: int, width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _networks(frame: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(frame["network"]))


def against_cost(summary: pd.DataFrame) -> Figure:
    """Infidelity and max-sensitivity of each method over its time, in plain gradients."""
    shown = [name for name in ("infidelity", "max_sensitivity") if name in set(summary["metric"])]
    figure, axes = _axes(len(_networks(summary)), len(shown), 5.4, 4.2)
    for row, network in zip(axes, _networks(summary), strict=True):
        part = summary[(summary["network"] == network) & (summary["stage"] == "")]
        time = part[part["metric"] == "time"].set_index("method")["mean"]
        for axis, metric in zip(row, shown, strict=True):
            own = part[part["metric"] == metric].set_index("method")
            for name in own.index:
                if name not in time or name not in METHODS:
                    continue
                line = own.loc[name]
                spread = [[line["mean"] - line["mean_low"]], [line["mean_high"] - line["mean"]]]
                number = list(METHODS).index(name) + 1
                axis.errorbar(
                    time[name], line["mean"], spread, fmt="o", ms=4, lw=0.8, color=color(name),
                    label=f"{number}  {find(name).title}",
                )  # fmt: skip
                axis.annotate(
                    str(number),
                    (time[name], line["mean"]),
                    xytext=(4, 3),
                    textcoords="offset points",
                    fontsize=8,
                    color=color(name),
                )
            axis.set(xscale="log", title=network, xlabel="time, in plain gradients (log)")
            axis.set_ylabel(f"{METRICS[metric].title} (lower is better)")
    handles = axes[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right center", fontsize=8, handlelength=0.8)
    return figure


def sweep(scores: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Metrics over the pullback's temperature, with Integrated Gradients and the fitted one."""
    shown = [name for name in SWEPT if name in set(summary["metric"])]
    figure, axes = _axes(1, len(shown), 4.4, 3.8)
    for network, tint in zip(_networks(summary), (OURS, "#0f766e", "#7c3aed") * 9, strict=False):
        fitted = scores[(scores["network"] == network) & (scores["metric"] == "temperature")]
        for axis, metric in zip(axes[0], shown, strict=True):
            part = summary[(summary["network"] == network) & (summary["metric"] == metric)]
            part = part.set_index("method")
            names = sorted(
                (n for n in part.index if n.startswith(AT)), key=lambda n: float(n[len(AT) :])
            )
            at = [float(name[len(AT) :]) for name in names]
            own = part.loc[names]
            axis.plot(at, own["mean"], "o-", ms=3, color=tint, label=network)
            axis.fill_between(at, own["mean_low"], own["mean_high"], color=tint, alpha=0.15, lw=0)
            if REFERENCE in part.index:
                axis.axhline(part.loc[REFERENCE, "mean"], color=tint, ls=":", lw=1)
            for value in fitted["value"]:
                axis.axvline(value, color=tint, ls="--", lw=1)
            axis.set(xscale="log", xlabel="temperature T (log)", ylabel=METRICS[metric].title)
    axes[0][0].legend(
        fontsize=7, title="dotted: Integrated Gradients\ndashed: fit_temperature", title_fontsize=7
    )
    return figure


def randomisation(summary: pd.DataFrame) -> Figure:
    """Similarity to the trained network's map, as parts are reinitialised from the output back."""
    part = summary[summary["metric"] == "randomisation"]
    figure, axes = _axes(1, len(_networks(part)), 5.6, 4.4)
    for axis, network in zip(axes[0], _networks(part), strict=True):
        own = part[part["network"] == network]
        stages = sorted(set(own["stage"]), key=lambda stage: int(stage.split()[0]))
        for number, name in enumerate(dict.fromkeys(own["method"])):
            line = own[own["method"] == name].set_index("stage").reindex(stages)
            axis.plot(
                range(len(stages) + 1),
                [1.0, *line["mean"]],
                color=color(name),
                ls=("-", "--", ":", "-.")[number % 4],
                marker="osv^Dx"[number % 6],
                ms=3,
                lw=1,
                label=find(name).title,
            )
        axis.set_xticks(range(len(stages) + 1), ["trained", *(s.split()[1] for s in stages)])
        axis.set(title=network, ylabel="Spearman correlation of absolute maps")
        axis.set_xlabel("reinitialised, from the output back to")
    handles = axes[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right center", fontsize=8)
    return figure


def differences(scores: pd.DataFrame) -> Figure:
    """Box plots over photographs of each method's score less that of Integrated Gradients."""
    values = per_image(scores)
    shown = [name for name in COMPARED if name in set(values["metric"])]
    figure, axes = _axes(len(_networks(values)), len(shown), 4.2, 4.4)
    for row, network in zip(axes, _networks(values), strict=True):
        for axis, metric in zip(row, shown, strict=True):
            part = values[(values["network"] == network) & (values["metric"] == metric)]
            wide = part.pivot_table(index="image", columns="method", values="value")
            names = [n for n in METHODS if n in wide and n != REFERENCE][::-1]
            gaps = [(wide[name] - wide[REFERENCE]).dropna().to_numpy() for name in names]
            boxes = axis.boxplot(
                gaps, orientation="horizontal", showfliers=False, patch_artist=True, widths=0.6
            )
            for patch, name in zip(boxes["boxes"], names, strict=True):
                patch.set(facecolor=color(name), alpha=0.4)
            titles = [find(name).title for name in names] if axis is row[0] else [""] * len(names)
            axis.set_yticks(np.arange(len(names)) + 1, titles, fontsize=6)
            axis.axvline(0, color="black", lw=0.8)
            axis.locator_params(axis="x", nbins=5)
            better = METRICS[metric].better
            axis.set_title(f"{network}: {METRICS[metric].title}", fontsize=8)
            axis.set_xlabel(f"less Integrated Gradients ({better} is better)", fontsize=7)
    return figure
