"""The tables of ``docs/benchmark.md`` and its details, from the summary in ``benchmarks/results``.

``python -m benchmarks.numbers`` puts them there, so that no score and no verdict is typed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import pandas as pd

from benchmarks.compare import report, verdicts
from benchmarks.compare.figures import NAMES
from benchmarks.compare.methods import METHODS, find
from benchmarks.compare.metrics import METRICS
from benchmarks.compare.report import SIGNS, number
from benchmarks.compare.statistics import first_to_last
from benchmarks.compare.verdicts import ROWS, Verdict
from benchmarks.markdown import table

RESULTS = Path(__file__).parents[1] / "results" / "compare" / "summary.csv"
WORDS = {"better": "better", "tie": "tie", "worse": "**worse**"}
Judge = Callable[[pd.DataFrame, str, str], Verdict | None]


@lru_cache(maxsize=1)
def results() -> pd.DataFrame:
    """The committed summary."""
    return report.read(RESULTS)


def networks(summary: pd.DataFrame) -> list[str]:
    """All that were measured, in their order."""
    return list(dict.fromkeys(summary["network"]))


def title(network: str) -> str:
    """What the page calls a network."""
    return NAMES.get(network, network)


def interval(values: tuple[float, float, float]) -> str:
    """A value with the ends of its interval."""
    return f"{number(values[0])} ({number(values[1])} to {number(values[2])})"


def _matrix(summary: pd.DataFrame, show: Callable[[str, str], str]) -> str:
    """What is asked by networks; a cell shows the metric that the network has of a row."""
    lines = []
    for name, metrics in ROWS.items():
        cells = []
        for network in networks(summary):
            own = [metric for metric in metrics if verdicts.measured(summary, network, metric)]
            cells.append(show(network, own[0]) if own else "")
        first = METRICS[metrics[0]]
        lines.append([f"{name}, {first.unit} {SIGNS[first.better]}", *cells])
    return table(["", *map(title, networks(summary))], lines)


def against(summary: pd.DataFrame, judge: Judge, *, named: bool = False) -> str:
    """The pullback's mean beside the other method's, whose name it may be, with the verdict."""

    def show(network: str, metric: str) -> str:
        found = judge(summary, network, metric)
        if found is None:
            return ""
        own, other = number(found.mean), number(found.other_mean)
        rival = f"{find(found.other).title} " if named else ""
        return f"{WORDS[found.verdict]}: {own}, {rival}{other}"

    return _matrix(summary, show)


def where(summary: pd.DataFrame, verdict: str, judge: Judge = verdicts.against_ig) -> str:
    """What the pullback is better, worse or neither in than the other, and on which networks."""
    parts = []
    for name, metrics in ROWS.items():
        names = [
            title(network)
            for network in networks(summary)
            for metric in metrics
            if (found := judge(summary, network, metric)) and found.verdict == verdict
        ]
        if names:
            everywhere = len(names) == len(networks(summary))
            parts.append(name.lower() + ("" if everywhere else f" ({', '.join(names)})"))
    return "; ".join(parts) or "nothing"


def in_words(summary: pd.DataFrame) -> str:
    """The same for people, what it loses in first."""
    return (
        f"- **It loses to Integrated Gradients** in {where(summary, 'worse')}.\n"
        "- **It loses to the best rival for each metric** in "
        f"{where(summary, 'worse', verdicts.against_best)}.\n"
        f"- It is better than Integrated Gradients in {where(summary, 'better')}.\n"
        f"- It and Integrated Gradients do not differ clearly in {where(summary, 'tie')}."
    )


def differences(summary: pd.DataFrame) -> str:
    """Every difference to Integrated Gradients and to the best rival, with its interval."""
    lines = []
    for network in networks(summary):
        for metric in METRICS:
            ig = verdicts.against_ig(summary, network, metric)
            best = verdicts.against_best(summary, network, metric)
            if ig is None or best is None:
                continue
            declared = METRICS[metric]
            lines.append(
                [
                    title(network),
                    f"{declared.title} ({declared.unit}) {SIGNS[declared.better]}",
                    ", ".join(map(str, dict.fromkeys((ig.pairs, best.pairs)))),
                    f"{WORDS[ig.verdict]}: {interval(ig.difference)}",
                    find(best.other).title,
                    f"{WORDS[best.verdict]}: {interval(best.difference)}",
                ]
            )
    return table(
        ["network", "metric (unit)", "photographs or batches", "minus Integrated Gradients",
         "best rival", "minus the best rival"], lines,
    )  # fmt: skip


def better(summary: pd.DataFrame) -> str:
    """All that is clearly better than the default pullback, controls too."""
    lines = []
    for network in networks(summary):
        for metric in METRICS:
            if verdicts.measured(summary, network, metric) and not METRICS[metric].of_machine:
                found = verdicts.clearly_better(summary, network, metric)
                shown = "; ".join(find(name).title for name in found) or "none"
                lines.append([title(network), METRICS[metric].title, shown])
    return table(["network", "metric", "clearly better than the untuned pullback"], lines)


def costs(summary: pd.DataFrame) -> str:
    """Time and memory of each method by networks, without the controls'."""
    lines = []
    for name in (name for name, method in METHODS.items() if method.kind != "control"):
        cells = []
        for network in networks(summary):
            spent = ("time", "milliseconds", "memory", "mebibytes")
            values = [verdicts.mean(summary, network, metric, name) for metric in spent]
            shown = [number(value) for value in values if value is not None]
            known = len(shown) == len(spent)
            cells.append("{} ({} ms), {} ({} MiB)".format(*shown) if known else "")
        lines.append([find(name).title, *cells])
    head = [f"{title(network)}: time, memory" for network in networks(summary)]
    return table(["relative to a plain gradient (per photograph)", *head], lines)


def means(summary: pd.DataFrame) -> str:
    """All means, a table for each network, methods by metrics."""
    blocks = []
    for network in networks(summary):
        titles, lines = report.means(summary, network, star="\\*")
        head = [f"{above} {below}" for above, below in titles]
        name = title(network)
        blocks.append(f"### {name[0].upper()}{name[1:]}\n\n{table(['', *head], lines)}")
    return "\n\n".join(blocks)


def skipped(summary: pd.DataFrame) -> str:
    """Which methods do not work on a network, and why."""
    part = summary[summary["metric"] == "skipped"]
    lines = [
        [title(network), find(method).title, why]
        for network, method, why in part[["network", "method", "note"]].to_numpy()
    ]
    return table(["network", "skipped method", "reason"], lines)


def measured(summary: pd.DataFrame) -> str:
    """What was run, with what, and on what."""
    first = summary.iloc[0]
    packages = ("captum_pullback", "captum", "torch", "torchvision", "python")
    versions = ", ".join(f"{name} {first[name]}" for name in packages)
    counts = []
    for network in networks(summary):
        own = summary[(summary["network"] == network) & (summary["method"] == "pullback")]
        seen = own.groupby("metric")["images"].max()
        parts = [f"{seen['infidelity']:g} photographs", f"{seen['max_sensitivity']:g} of them for "
                 "max-sensitivity and random logit"]  # fmt: skip
        if "mosaic_share" in seen:
            parts.append(f"{seen['mosaic_share']:g} in mosaics")
        counts.append(f"- {title(network)}: {', '.join(parts)}")
    timed = summary[summary["metric"] == "time"]["note"]
    notes = [note for each in timed for note in each.split(" to ")]
    loads = f", {first_to_last(notes)} during the timing" if notes else ""
    commands = first["command"].replace(", python -m", "\npython -m")
    return (
        "\n".join(counts) + f"\n\n{versions}; {first['device']}{loads}. Measured by\n\n"
        f"```shell\n{commands}\n```"
    )


def declared(summary: pd.DataFrame) -> str:
    """The metrics as they are declared."""
    lines = [
        [m.title, m.unit, m.better, m.meaning, m.source]
        for name, m in METRICS.items()
        if name in set(summary["metric"])
    ]
    return table(["metric", "unit", "better", "what it is", "source"], lines)


def numbers() -> dict[str, str]:
    """Means by network, metric and method, ``compare:NETWORK:METRIC:METHOD``, and ratios to IG."""
    own = results()
    found = {"compare-losses": where(own, "worse"), "compare-wins": where(own, "better")}
    own = own[own["reference"] == "ig"]
    for row in own.itertuples():
        key = f"compare:{row.network}:{row.metric}:{row.method}"
        found[key] = number(row.mean)
        found[f"{key}:ratio"] = number(row.ratio)
        found[f"{key}:images"] = f"{row.images:g}"
    return found


def tables() -> dict[str, str]:
    """Every table that a page may ask for."""
    summary = results()
    published = partial(verdicts.against_ig, method="pullback_published")
    return {
        "compare in words": in_words(summary),
        "compare against ig": against(summary, verdicts.against_ig),
        "compare against best": against(summary, verdicts.against_best, named=True),
        "compare published temperature": against(summary, published),
        "compare differences": differences(summary),
        "compare better": better(summary),
        "compare costs": costs(summary),
        "compare means": means(summary),
        "compare skipped": skipped(summary),
        "compare measured": measured(summary),
        "compare metrics": declared(summary),
    }
